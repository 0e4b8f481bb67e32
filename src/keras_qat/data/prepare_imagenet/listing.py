"""All images of one split with their classes, listed from the headers of its archive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.prepare_imagenet.archive import Archive, Member, archive_error
from keras_qat.data.prepare_imagenet.devkit import Devkit
from keras_qat.progress import track

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Listing:
    """The n images of a split. Arrays and not objects: there are more than a million.

    Args:
        split: `"train"` or `"validation"`.
        archive: that holds them.
        names: of the files.
        offset: int64 (n,): where in the archive the bytes begin.
        size: int64 (n,): how many there are.
        label: int32 (n,): the customary label, from 1 on.
    """

    split: str
    archive: Archive
    names: tuple[str, ...]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    label: NDArray[np.int32]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.names)

    def content(self, image: int) -> bytes:
        """The bytes of an image file.

        Raises:
            DataError: the archive can't be read, or ends within them.
        """
        return self.archive.content(Member(self.names[image], int(self.offset[image]), int(self.size[image])))


def list_train(archive: Archive, devkit: Devkit) -> Listing:
    """List the training images: those of each class in a tar of its own within the archive.

    Raises:
        DataError: the archive is truncated, a class is missing, or it holds something else.
    """
    labels = devkit.labels
    members: list[Member] = []
    found: list[int] = []
    missing = set(labels)
    for inner in track(archive.members(), f"indexing {TRAIN}", total=len(labels)):
        wnid = Path(inner.name).stem
        if wnid not in missing or inner.name != f"{wnid}.tar":
            raise archive_error(archive.path, f"{inner.name!r} in it is no archive of a class, or there twice")
        missing.remove(wnid)
        images = list(archive.members(inner))
        members += images
        found += [labels[wnid]] * len(images)
    if missing:
        shown = ", ".join(f"{wnid}.tar" for wnid in sorted(missing)[:_SHOWN])
        raise archive_error(archive.path, f"{len(missing)} of {len(labels)} classes are missing, such as {shown}")
    return _listing("train", archive, members, found)


def list_validation(archive: Archive, devkit: Devkit) -> Listing:
    """List the validation images, whose classes are the development kit's answers.

    Raises:
        DataError: the archive is truncated, or has another number of images than there are answers.
    """
    members = sorted(track(archive.members(), f"indexing {VALIDATION}"), key=lambda member: member.name)
    if len(members) != len(devkit.answers):
        raise archive_error(
            archive.path, f"it has {len(members)} images, the development kit has {len(devkit.answers)} answers"
        )
    labels: Mapping[str, int] = devkit.labels
    return _listing("validation", archive, members, [labels[wnid] for wnid in devkit.answers])


def _listing(split: str, archive: Archive, members: Sequence[Member], labels: Sequence[int]) -> Listing:
    if not members:
        raise archive_error(archive.path, "it has no image")
    return Listing(
        split,
        archive,
        names=tuple(member.name for member in members),
        offset=np.asarray([member.offset for member in members], np.int64),
        size=np.asarray([member.size for member in members], np.int64),
        label=np.asarray(labels, np.int32),
    )

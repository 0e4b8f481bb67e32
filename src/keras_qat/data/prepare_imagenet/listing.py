"""All images of one split with their classes, listed from the headers of its archive."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.prepare_imagenet.archive import Archive, Member, archive_error
from keras_qat.data.prepare_imagenet.devkit import Devkit
from keras_qat.progress import track

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
_SHOWN = 5

_Part = tuple[NDArray[np.bytes_], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]


@dataclass(frozen=True, eq=False)
class Listing:
    """The n images of a split. Arrays and not objects: there are more than a million.

    Args:
        split: `"train"` or `"validation"`.
        archive: that holds them.
        wnids: of the classes, in the order of the labels.
        names: bytes (n,): of the files.
        offset: int64 (n,): where in the archive the bytes begin.
        size: int64 (n,): how many there are.
        label: int32 (n,): the customary label, from 1 on.
    """

    split: str
    archive: Archive
    wnids: tuple[str, ...]
    names: NDArray[np.bytes_]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    label: NDArray[np.int32]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.names)

    def name(self, image: int) -> str:
        """The name of an image file."""
        return os.fsdecode(self.names[image])

    def key(self, image: int) -> str:
        """Class and name of an image file, since two classes may have files of one name: `n01440764/x.JPEG`."""
        return f"{self.wnids[self.label[image] - 1]}/{self.name(image)}"

    def content(self, image: int) -> bytes:
        """The bytes of an image file.

        Raises:
            DataError: the archive can't be read, or ends within them.
        """
        return self.archive.content(Member(self.name(image), int(self.offset[image]), int(self.size[image])))


def list_train(archive: Archive, devkit: Devkit) -> Listing:
    """List the training images: those of each class in a tar of its own within the archive.

    Raises:
        DataError: the archive is truncated, a class is missing, or it holds something else.
    """
    labels = devkit.labels
    parts = []
    missing = set(labels)
    for inner in track(archive.members(), f"indexing {TRAIN}", total=len(labels)):
        wnid = Path(inner.name).stem
        if wnid not in missing or inner.name != f"{wnid}.tar":
            raise archive_error(archive.path, f"{inner.name!r} in it is no archive of a class, or there twice")
        missing.remove(wnid)
        parts.append(_part(archive.members(inner), labels[wnid]))
    if missing:
        shown = ", ".join(f"{wnid}.tar" for wnid in sorted(missing)[:_SHOWN])
        raise archive_error(archive.path, f"{len(missing)} of {len(labels)} classes are missing, such as {shown}")
    return _listing("train", archive, devkit, parts)


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
    labels = devkit.labels
    return _listing("validation", archive, devkit, [_part(members, [labels[wnid] for wnid in devkit.answers])])


def _part(members: Iterable[Member], label: int | Sequence[int]) -> _Part:
    """Names, offsets, sizes and labels of some images, as arrays."""
    files = list(members)
    return (
        np.asarray([os.fsencode(file.name) for file in files], np.bytes_),
        np.asarray([file.offset for file in files], np.int64),
        np.asarray([file.size for file in files], np.int64),
        np.full(len(files), label, np.int32),
    )


def _listing(split: str, archive: Archive, devkit: Devkit, parts: Sequence[_Part]) -> Listing:
    names, offset, size, label = map(np.concatenate, zip(*parts, strict=True))
    if not len(names):
        raise archive_error(archive.path, "it has no image")
    return Listing(split, archive, tuple(devkit.words), names, offset, size, label)

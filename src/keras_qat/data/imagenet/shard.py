"""All images of one split with their classes, listed from the headers of its archive.

An image file of ImageNet as it goes into a record.

ILSVRC 2012 has a PNG that is named .JPEG (n02105855_2933.JPEG) and 22 JPEGs in CMYK, which JPEG decoders such as
`tf.io.decode_jpeg` refuse. They are told by their content, and encoded anew; all other files are kept byte for byte.

One shard: the records of some images, under the customary features.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_qat.data.decode import opened, to_rgb
from keras_qat.data.imagenet.archive import Archive, Devkit, Member, archive_error
from keras_qat.data.records.framing import write_record
from keras_qat.errors import DataError
from keras_qat.files import atomic_path
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


# Pillow calls a JPEG with further pictures behind it MPO.
_JPEG = frozenset({"JPEG", "MPO"})
_MODES = frozenset({"RGB", "L"})
_QUALITY = 100
# Colours in full resolution, as a PNG and CMYK have them.
_EVERY_COLOUR = 0


@dataclass(frozen=True)
class Picture:
    """A JPEG file.

    Args:
        data: its bytes.
        width: in pixels.
        height: in pixels.
        was: what it was before it was encoded anew, such as `"CMYK JPEG"`; `None` where the bytes are as they were.
    """

    data: bytes
    width: int
    height: int
    was: str | None = None


def to_picture(data: bytes, name: str) -> Picture:
    """Look at the header of an image file; encode it anew as RGB JPEG if it is no JPEG in RGB or gray.

    Raises:
        DataError: the content is no image, or what must be decoded can't be; `name` is what the error calls it.
    """
    with opened(io.BytesIO(data), name) as image:
        width, height = image.size
        if image.format in _JPEG and image.mode in _MODES:
            return Picture(data, width, height)
        encoded = io.BytesIO()
        to_rgb(image).save(encoded, "JPEG", quality=_QUALITY, subsampling=_EVERY_COLOUR)
        return Picture(encoded.getvalue(), width, height, f"{image.mode} {image.format}")


RECORD_BYTES = 600
"""More than a record takes beside its image."""


@dataclass(frozen=True)
class ShardReport:
    """What was written.

    Args:
        records: how many.
        size: of the file in bytes.
        sha256: of the file, 64 hexadecimal digits.
        encoded: images that were encoded anew: `Listing.key` → what they were.
        skipped: images that are no image, and left out: likewise → why.
    """

    records: int
    size: int
    sha256: str
    encoded: Mapping[str, str]
    skipped: Mapping[str, str]


def write_shard(
    path: Path, listing: Listing, images: NDArray[np.int64], words: Mapping[str, str], *, skip_bad: bool
) -> ShardReport:
    """Write a shard under a temporary name and rename it.

    Args:
        path: of the shard.
        listing: of its split.
        images: their indices in `listing`, in the order of the records.
        words: each class's WordNet id → its words, in the order of the labels.
        skip_bad: leave out files that are no image.

    Raises:
        DataError: the archive can't be read, or a file is no image and `skip_bad` isn't set.
        StorageError: the shard can't be written.
    """
    classes = tuple(words.items())
    encoded: dict[str, str] = {}
    skipped: dict[str, str] = {}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = _Hashing(file)
        for image in map(int, images):
            name, key = listing.name(image), listing.key(image)
            data = listing.content(image)
            try:
                picture = to_picture(data, f"{key} in {listing.archive.path}")
            except DataError as error:
                if not skip_bad:
                    raise
                skipped[key] = str(error)
                continue
            if picture.was is not None:
                encoded[key] = picture.was
            label = int(listing.label[image])
            write_record(writer, _example(picture, name, label, *classes[label - 1]))
    return ShardReport(len(images) - len(skipped), writer.size, writer.digest(), encoded, skipped)


def _example(picture: Picture, name: str, label: int, wnid: str, text: str) -> bytes:
    """A serialized `tf.train.Example`, the same bytes for the same image."""
    values: dict[str, bytes | int] = {
        "image/encoded": picture.data,
        "image/class/label": label,
        "image/class/text": text.encode(),
        "image/class/synset": wnid.encode(),
        "image/height": picture.height,
        "image/width": picture.width,
        # Of the decoded image, as the customary shards have it for the gray ones, too.
        "image/channels": 3,
        "image/colorspace": b"RGB",
        "image/format": b"JPEG",
        "image/filename": name.encode(),
    }
    features = tf.train.Features(feature={key: _feature(value) for key, value in values.items()})
    data: bytes = tf.train.Example(features=features).SerializeToString(deterministic=True)
    return data


def _feature(value: bytes | int) -> tf.train.Feature:
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


class _Hashing:
    """Counts and hashes what goes to a file, so that it needn't be read again for that."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> str:
        return self._hash.hexdigest()

"""One TFRecord shard: which images it holds, and its records under the customary features.

ILSVRC 2012 has a PNG that is named .JPEG (n02105855_2933.JPEG) and 22 JPEGs in CMYK, which JPEG decoders such as
`tf.io.decode_jpeg` refuse. They are told by their content and encoded anew; all other files are kept byte for byte.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_qat.data.image_files import opened
from keras_qat.data.imagenet.listing import Listing
from keras_qat.data.records import framing
from keras_qat.data.records.shard_names import shard_name
from keras_qat.data.rgb import to_rgb
from keras_qat.errors import DataError, UserError
from keras_qat.files import atomic_path

_RECORD_BYTES = 600
"""More than a record takes beside its image."""

_STREAMS = {"train": 0, "validation": 1}
"""Makes the random order of one split independent of the other's."""

# Pillow calls a JPEG with further pictures behind it MPO.
_JPEG = frozenset({"JPEG", "MPO"})
_MODES = frozenset({"RGB", "L"})

_QUALITY = 100
_FULL_COLOUR = 0
"""Pillow's `subsampling` that keeps the full resolution of colours, which PNG and CMYK JPEG have."""


@dataclass(frozen=True, eq=False)
class Shard:
    """One shard to write.

    Args:
        name: the name of the file.
        listing: the images of its split.
        images: int64 (n,): the indices in `listing` of its images, in the order of the records.
    """

    name: str
    listing: Listing
    images: NDArray[np.int64]

    @property
    def estimated_size(self) -> int:
        """The size of the file in bytes, estimated a little too large for images that keep their content."""
        return int(self.listing.size[self.images].sum()) + _RECORD_BYTES * len(self.images)


@dataclass(frozen=True)
class ShardReport:
    """What was written into a shard.

    Args:
        records: the number of records.
        size: the size of the file in bytes.
        sha256: the SHA-256 of the file, as 64 hexadecimal digits.
        encoded: the images that were encoded anew: `Listing.key` → what they were.
        skipped: the files that are no image and were left out: `Listing.key` → why.
    """

    records: int
    size: int
    sha256: str
    encoded: Mapping[str, str]
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class _Picture:
    """A JPEG file.

    Args:
        data: its content.
        width: its width in pixels.
        height: its height in pixels.
        was: what it was before it was encoded anew, such as `"CMYK JPEG"`; `None` if its content was kept.
    """

    data: bytes
    width: int
    height: int
    was: str | None = None


def plan_shards(listing: Listing, count: int, seed: int) -> Sequence[Shard]:
    """Cut a seeded permutation of a split's images into `count` shards that differ by at most one image.

    Raises:
        UserError: If there are more shards than images.
    """
    if count > len(listing):
        raise UserError(
            f"There are more {listing.split} shards than images. Received: {count} shards, {len(listing)} images. "
            "Give fewer shards."
        )
    order = np.random.default_rng((seed, _STREAMS[listing.split])).permutation(len(listing))
    parts = np.array_split(order, count)
    return [Shard(shard_name(listing.split, i, count), listing, part) for i, part in enumerate(parts)]


def write_shard(path: Path, shard: Shard, words: Mapping[str, str], *, skip_bad: bool) -> ShardReport:
    """Write a shard under a temporary name, and rename it.

    Args:
        path: the file to write.
        shard: its images.
        words: each class's WordNet id → its words, in the order of the labels.
        skip_bad: leave out files that are no image.

    Raises:
        BrokenImageError: If a file is no image and `skip_bad` is not set.
        DataError: If the archive can't be read.
        StorageError: If the shard can't be written.
    """
    listing = shard.listing
    classes = tuple(words.items())
    encoded: dict[str, str] = {}
    skipped: dict[str, str] = {}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = _HashingWriter(file)
        for image in map(int, shard.images):
            name, key = listing.name(image), listing.key(image)
            data = listing.content(image)
            try:
                picture = _to_picture(data, f"{key} in {listing.archive.path}")
            except DataError as error:
                if not skip_bad:
                    raise
                skipped[key] = str(error)
                continue
            if picture.was is not None:
                encoded[key] = picture.was
            label = int(listing.label[image])
            framing.write_record(writer, _example(picture, name, label, *classes[label - 1]))
    return ShardReport(len(shard.images) - len(skipped), writer.size, writer.digest(), encoded, skipped)


def _to_picture(data: bytes, name: str) -> _Picture:
    """Read the header of an image file, and encode the image anew unless it is a JPEG in RGB or gray."""
    with opened(io.BytesIO(data), name) as image:
        width, height = image.size
        if image.format in _JPEG and image.mode in _MODES:
            return _Picture(data, width, height)
        encoded = io.BytesIO()
        to_rgb(image).save(encoded, "JPEG", quality=_QUALITY, subsampling=_FULL_COLOUR)
        return _Picture(encoded.getvalue(), width, height, f"{image.mode} {image.format}")


def _example(picture: _Picture, name: str, label: int, wnid: str, text: str) -> bytes:
    """A serialized `tf.train.Example`, the same bytes for the same image."""
    values: dict[str, bytes | int] = {
        "image/encoded": picture.data,
        "image/class/label": label,
        "image/class/text": text.encode(),
        "image/class/synset": wnid.encode(),
        "image/height": picture.height,
        "image/width": picture.width,
        # Those of the decoded image: the customary shards have the same for gray ones.
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


class _HashingWriter:
    """Counts and hashes what goes to a file, so that the file need not be read again for that."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> str:
        return self._hash.hexdigest()

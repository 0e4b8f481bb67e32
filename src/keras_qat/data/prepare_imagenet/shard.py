"""One shard: the records of some images, under the customary features."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_qat.data.prepare_imagenet.listing import Listing
from keras_qat.data.prepare_imagenet.picture import Picture, to_picture
from keras_qat.data.records.framing import write_record
from keras_qat.errors import DataError
from keras_qat.storage import atomic_path

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

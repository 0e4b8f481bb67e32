"""Records in a file: TFRecord framing with its checksums, errors of bad records, and which feature holds what.

    uint64 length | uint32 masked CRC-32C of it | length bytes | uint32 masked CRC-32C of these

all little-endian, with mask(crc) = ((crc >> 15 | crc << 17) + 0xa282ead8) mod 2³²
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details).

A record holds a `tf.train.Example`, whose features have other names in each layout.
"""

import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import google_crc32c
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from typing_extensions import Self

from keras_qat.errors import BrokenImageError, DataError
from keras_qat.files import open_file

ADVICE = "Copy the shard anew from where it came, or write it again."
"""What to do about a bad record."""

_HEADER_BYTES = 12
FRAME_BYTES = 16
"""The bytes of a record beside its payload."""

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
_MOST_BYTES = 2**31 - 1
"""The most bytes of a message of Protocol Buffers."""

_32_BITS = 0xFFFFFFFF

# The first bytes of a gzip file, and of the usual zlib streams.
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x78\x01": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}


class BinaryWriter(Protocol):
    """An object that takes bytes: a file, or a writer that counts and hashes what goes to one."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


@dataclass(frozen=True)
class Record:
    """A record whose checksums are right: where in the file it begins, its payload, and the checksum of that."""

    offset: int
    payload: bytes
    crc: int


@dataclass(frozen=True)
class BadRecord:
    """A record that can't be used.

    Args:
        offset: where in the file it begins.
        problem: what is wrong with it.
        end: where the next record begins; `None` if its length is not known, and the rest of the file is lost.
    """

    offset: int
    problem: str
    end: int | None


def masked_crc(data: bytes) -> int:
    """The checksum that a TFRecord file stores for `data`.

    Example:
        >>> hex(masked_crc(b"123456789"))  # CRC-32C 0xe3069283, rotated by 15 bits, plus the constant
        '0xc78ab0e5'
    """
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _32_BITS


def write_record(file: BinaryWriter, payload: bytes) -> None:
    """Append one record to a binary file.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> write_record(file, b"abc")
        >>> len(file.getvalue()) == 3 + FRAME_BYTES
        True
    """
    length = _LENGTH.pack(len(payload))
    file.write(length + _CRC.pack(masked_crc(length)))
    file.write(payload)
    file.write(_CRC.pack(masked_crc(payload)))


def read_record(path: str | Path, offset: int, length: int = 0) -> bytes:
    """Read the record that begins at `offset`, and check it.

    Args:
        path: an uncompressed TFRecord file.
        offset: in bytes, as `scan_records` gives it.
        length: the expected size of the payload in bytes; with the right number the file is read once, not twice.

    Returns:
        The payload.

    Raises:
        BrokenImageError: If the record is corrupt or truncated.
        DataError: If the file can't be read.
    """
    with _Shard(path) as shard:
        record = shard.read(offset, length)
    if isinstance(record, BadRecord):
        raise record_error(path, record.offset, record.problem)
    return record.payload


def scan_records(path: str | Path) -> Iterator[Record | BadRecord]:
    """Read all records of a file from beginning to end, and check them.

    A record of unknown length is the last one: nothing can be read behind it.

    Args:
        path: an uncompressed TFRecord file; an empty one has no records.

    Raises:
        DataError: If the file can't be read, or is compressed.
    """
    with _Shard(path) as shard:
        offset: int | None = 0
        while offset is not None and offset < shard.size:
            record = shard.read(offset)
            if isinstance(record, BadRecord):
                if offset == 0:
                    _require_uncompressed(path, shard.bytes_at(0, 2))
                offset = record.end
            else:
                offset += len(record.payload) + FRAME_BYTES
            yield record


class _Shard:
    """An open TFRecord file, read at any offset."""

    def __init__(self, path: str | Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        try:
            self._file = open_file(self._path)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        self._descriptor = self._file.fileno()
        self.size = os.fstat(self._descriptor).st_size
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def bytes_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset` on; fewer only at the end of the file."""
        parts = []
        try:
            # One call reads at most 2 GB.
            while count and (part := os.pread(self._descriptor, count, offset)):
                parts.append(part)
                offset, count = offset + len(part), count - len(part)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        return b"".join(parts)

    def read(self, offset: int, expected: int = 0) -> Record | BadRecord:
        """The record that begins at `offset`, of `expected` bytes if that is known."""
        block = self.bytes_at(offset, _HEADER_BYTES + (expected + _CRC.size if expected else 0))
        if len(block) < _HEADER_BYTES:
            return BadRecord(offset, "the file ends within its length", None)
        if masked_crc(block[:8]) != _CRC.unpack(block[8:_HEADER_BYTES])[0]:
            return BadRecord(offset, "the checksum of its length is wrong", None)
        (length,) = _LENGTH.unpack(block[:8])
        end = offset + FRAME_BYTES + length
        if end > self.size:
            return BadRecord(offset, f"the file ends at byte {self.size}, before its end at {end}", None)
        if length > _MOST_BYTES:
            return BadRecord(offset, f"it has {length} bytes, and no tf.train.Example has 2 GB", end)
        if len(block) != FRAME_BYTES + length:
            block = self.bytes_at(offset, FRAME_BYTES + length)
        payload, crc = block[_HEADER_BYTES:-4], block[-4:]
        (checksum,) = _CRC.unpack(crc)
        if masked_crc(payload) != checksum:
            return BadRecord(offset, "the checksum of its data is wrong", end)
        return Record(offset, payload, checksum)


def record_error(path: str | Path, offset: int, problem: str) -> BrokenImageError:
    """The error of one record, which names the file and where in it the record begins."""
    return BrokenImageError(record_problem(path, offset, problem, ADVICE))


def record_problem(path: str | Path, offset: int, problem: str, advice: str) -> str:
    """The message about one record.

    Example:
        >>> record_problem("shard", 16, "it is cut off", "Copy it again.")
        "Can't use the record at byte 16 of shard: it is cut off. Received: 'shard'. Copy it again."
    """
    return f"Can't use the record at byte {offset} of {path}: {problem}. Received: {str(path)!r}. {advice}"


def _unreadable(path: str | Path, error: OSError) -> DataError:
    return DataError(
        f"Can't read {path}: {error.strerror or error}. Received: {str(path)!r}. Give a file that you may read."
    )


def _require_uncompressed(path: str | Path, first_bytes: bytes) -> None:
    kind = _COMPRESSED.get(first_bytes)
    if kind is not None:
        raise DataError(
            f"{path} is compressed, so single records of it can't be read. Received: a {kind} file. "
            "Write the shards anew without compression (gzip: `gunzip < SHARD > SHARD.plain`, then rename): "
            "the images in them are compressed by themselves."
        )


@dataclass(frozen=True)
class Layout:
    """The features of one kind of record set.

    Args:
        name: what an error message calls the layout.
        image: the feature that holds the encoded image.
        label: the feature that holds the number of its class.
        first: the number of the first class; `None` if it differs from set to set, and the labels must tell.
        synset: the feature that holds the WordNet id of its class, or a word for the class.
        text: the feature that holds its class in words.
    """

    name: str
    image: str
    label: str
    first: int | None = None
    synset: str | None = None
    text: str | None = None


LAYOUTS = (
    Layout(
        "customary",
        image="image/encoded",
        label="image/class/label",
        synset="image/class/synset",
        text="image/class/text",
    ),
    Layout("TensorFlow Datasets", image="image", label="label", first=0),
)
"""A record has the first layout whose image and label are among its features. Add yours here."""


def find_layout(features: Collection[str]) -> Layout | None:
    """The layout of a record with these features, or `None` if it is not a known one.

    Example:
        >>> find_layout({"image", "label", "file_name"}).name
        'TensorFlow Datasets'
    """
    return next((layout for layout in LAYOUTS if {layout.image, layout.label} <= set(features)), None)


def parse_features(payload: bytes) -> Any:
    """The features of a serialized `tf.train.Example` by their names, or `None` if `payload` is not one."""
    try:
        return tf.train.Example.FromString(payload).features.feature
    except DecodeError:
        return None


def bytes_of(features: Any, name: str | None) -> bytes | None:
    """The first byte string of a feature, or `None` if it has none."""
    values = () if name is None or name not in features else features[name].bytes_list.value
    return values[0] if values else None


def integer_of(features: Any, name: str) -> int | None:
    """The first integer of a feature, or `None` if it has none."""
    values = features[name].int64_list.value if name in features else ()
    return values[0] if values else None

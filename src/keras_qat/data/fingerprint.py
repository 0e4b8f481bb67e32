"""Digests by which a run knows its data again: of files, and of arrays in memory or on disk. They need no framework."""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from keras_qat.files import open_file
from keras_qat.progress import track

_MOST_HASHED, _LEAST_HASHED, _PIECES = 2**33, 2**14, 4
"""The most bytes that a fingerprint reads, but at least so many of each file; and in how many pieces."""

_AT_A_TIME = 2**20
"""The bytes that are read at a time."""

_AT_ONCE = 100
"""The files of one task of a thread."""


def digest(*parts: bytes) -> str:
    """The SHA-256 of all parts together, as 64 hexadecimal digits."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part)
    return sha256.hexdigest()


def digest_files(paths: Sequence[str]) -> str:
    """A digest of each file's name, size and content, in this order.

    Files are read whole if they are small or few: at most 8 GB are read, and of more than that four pieces of each
    file, spread from its beginning to its end. What is compressed differs up to its end if it differs anywhere.
    50,000 photos of 110 kB, 5.5 GB, take 4 s on 2 cores if the system has them in memory.
    """
    most = max(_MOST_HASHED // max(len(paths), 1), _LEAST_HASHED)
    groups = [paths[begin : begin + _AT_ONCE] for begin in range(0, len(paths), _AT_ONCE)]
    with ThreadPoolExecutor() as pool:
        facts = pool.map(lambda group: b"".join(_file_facts(path, most) for path in group), groups)
        return digest(*track(facts, "looking for changed files", total=len(groups)))


def digest_rows(shape: tuple[int, ...], dtype: np.dtype, read: Callable[[slice], Any]) -> str:
    """A digest of an array's shape, type and numbers, of which at most 8 GB are read, in pieces from begin to end.

    Args:
        shape: the shape of the whole array, its rows along the first axis.
        dtype: the type of its numbers.
        read: gives the rows of a slice.

    Example:
        >>> rows = np.arange(6).reshape(3, 2)
        >>> digest_rows(rows.shape, rows.dtype, rows.__getitem__) == digest_rows((3, 2), rows.dtype, lambda _: rows * 0)
        False
    """
    row = max(int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize, 1)
    at_a_time = max(_AT_A_TIME // row, 1)
    step = max(at_a_time, at_a_time * -(-shape[0] * row // _MOST_HASHED))
    begins = range(0, shape[0], step)
    crcs = [google_crc32c.value(np.ascontiguousarray(read(slice(b, b + at_a_time))).tobytes()) for b in begins]
    return digest(f"{shape} {dtype.str}".encode(), np.asarray(crcs, np.uint32).tobytes())


def _file_facts(path: str, most: int) -> bytes:
    """A file's name, size, and a checksum of at most `most` bytes of its content, if it can be read."""
    name = os.fsencode(os.path.basename(path))  # noqa: PTH119 - a Path for each of a million files
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            # A checksum finds files that were changed or exchanged, at ten times the speed of a SHA-256.
            crc = functools.reduce(google_crc32c.extend, _pieces(file, size, most), 0)
    except OSError as error:
        # It has gone, or may not be read: it is reported when its content is needed.
        return b"%b: %b\n" % (name, type(error).__name__.encode())
    return b"%b %d %d\n" % (name, size, crc)


def _pieces(file: BinaryIO, size: int, most: int) -> Iterator[bytes]:
    """The content of a file, or pieces of it that are `most` bytes in all."""
    if size <= most:
        while piece := file.read(_AT_A_TIME):
            yield piece
        return
    length = most // _PIECES
    for i in range(_PIECES):
        file.seek((size - length) * i // (_PIECES - 1))
        yield file.read(length)

"""The files in an uncompressed tar, and in the tars within it, read in place: nothing is unpacked.

The official archives of ILSVRC 2012 are `ILSVRC2012_img_train.tar`, a tar of one tar for each class named by its
WordNet id, and `ILSVRC2012_img_val.tar`, a flat tar.
"""

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from keras_qat.errors import DataError, UserError
from keras_qat.files import open_file
from keras_qat.text import shortened, size_text

_BLOCK = 512
"""The size of a header, in bytes; a header of zeros ends an archive."""

_MOST_BYTES = 2**28
"""The most bytes of a file that is read into memory, far more than any image of ILSVRC 2012 has."""


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Args:
        name: its name without folders.
        offset: where in the archive its content begins, in bytes.
        size: the size of its content, in bytes.
    """

    name: str
    offset: int
    size: int


@contextmanager
def open_archive(path: Path) -> Iterator["Archive"]:
    """Open a tar for the time of the block.

    Raises:
        DataError: If it can't be opened.
    """
    try:
        file = open_file(path)
    except OSError as error:
        raise archive_error(path, error.strerror or str(error)) from error
    with file:
        yield Archive(path, file.fileno())


class Archive:
    """An open tar, which any number of threads may read."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = os.fstat(descriptor).st_size
        self._descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes at `offset`, or fewer at the end of the archive.

        Raises:
            DataError: If the archive can't be read.
        """
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise archive_error(self.path, error.strerror or str(error)) from error

    def content(self, member: Member) -> bytes:
        """Read the content of a file.

        Raises:
            DataError: If the archive can't be read, ends within the file, or the file is too large to be an image.
        """
        if member.size > _MOST_BYTES:
            raise archive_error(self.path, f"{member.name} in it has {size_text(member.size)}, and no image has")
        data = self.read(member.offset, member.size)
        if len(data) < member.size:
            raise archive_error(self.path, f"it ends within {member.name}")
        return data

    def members(self, within: Member | None = None) -> Iterator[Member]:
        """List the files of the archive, or of an archive within it, from their headers alone.

        Raises:
            DataError: If the archive is truncated, compressed, or no tar.
        """
        window = _Window(self, 0, self.size) if within is None else _Window(self, within.offset, within.size)
        name = str(self.path) if within is None else f"{within.name} in {self.path}"
        try:
            with tarfile.open(fileobj=cast(BinaryIO, window), mode="r:") as tar:
                for entry in tar:
                    if entry.isfile():
                        file_name = entry.name.rsplit("/", 1)[-1]
                        yield Member(file_name, window.start + entry.offset_data, entry.size)
                # `tarfile` takes a broken header, or a file that ends before one, for the end of the archive.
                end = tar.offset
        except UserError:
            raise
        except Exception as error:  # `tarfile` raises errors of many classes on damaged headers
            problem = shortened(error)
            raise archive_error(self.path, f"{name} is truncated or no uncompressed tar ({problem})") from error
        whole = within is not None and end == window.size
        if not whole and window.at(end, _BLOCK) != bytes(_BLOCK):
            raise archive_error(self.path, f"{name} is truncated or corrupt at byte {end}")


class _Window:
    """A part of an archive as the file object that `tarfile` reads."""

    def __init__(self, archive: Archive, start: int, size: int) -> None:
        self.start, self.size = start, size
        self._archive, self._position = archive, 0

    def at(self, position: int, count: int) -> bytes:
        return self._archive.read(self.start + position, max(0, min(count, self.size - position)))

    def read(self, count: int) -> bytes:
        data = self.at(self._position, count)
        self._position += len(data)
        return data

    def seek(self, position: int) -> int:
        self._position = position
        return position

    def tell(self) -> int:
        return self._position


def archive_error(path: Path, problem: str) -> DataError:
    """The error of an archive, which names it and says what to do."""
    return DataError(
        f"Can't use the archive {path}: {problem}. Received: {str(path)!r}. "
        f"Give the official {path.name}; if it is that, download it again."
    )

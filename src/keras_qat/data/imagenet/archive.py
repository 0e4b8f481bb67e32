"""Where each image lies in an uncompressed tar, and in the tars within it: any image can be read, nothing is unpacked.

The official archives of ILSVRC 2012 are `ILSVRC2012_img_train.tar`, a tar of one tar for each class named by its
WordNet id, and `ILSVRC2012_img_val.tar`, a flat tar.

The classes of ILSVRC 2012 and the answers of its validation, from the official development kit.

`ILSVRC2012_devkit_t12.tar.gz` holds `data/meta.mat`, a struct array `synsets` whose leaves (`num_children` is 0) are
the classes, and `data/ILSVRC2012_validation_ground_truth.txt`, the ILSVRC2012_ID of each validation image by file name.
"""

import io
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from keras_qat.errors import DataError

_BLOCK = 512


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name without folders, and where its bytes lie."""

    name: str
    offset: int
    size: int


class Archive:
    """An open tar, read by any number of threads."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = os.fstat(descriptor).st_size
        self._descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end.

        Raises:
            DataError: the archive can't be read.
        """
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise archive_error(self.path, error.strerror or str(error)) from error

    def content(self, member: Member) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: the archive ends within it.
        """
        data = self.read(member.offset, member.size)
        if len(data) < member.size:
            raise archive_error(self.path, f"it ends within {member.name}")
        return data

    def members(self, within: Member | None = None) -> Iterator[Member]:
        """The files of the archive, or of an archive within it, by reading headers only.

        Raises:
            DataError: it is truncated, compressed, or no tar.
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
        except tarfile.TarError as error:
            raise archive_error(self.path, f"{name} is truncated or no uncompressed tar ({error})") from error
        whole = within is not None and end == window.size
        if not whole and window.at(end, _BLOCK) != bytes(_BLOCK):
            raise archive_error(self.path, f"{name} is truncated or corrupt at byte {end}")


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a tar for the time of the block.

    Raises:
        DataError: it can't be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise archive_error(path, error.strerror or str(error)) from error
    try:
        yield Archive(path, descriptor)
    finally:
        os.close(descriptor)


def archive_error(path: Path, problem: str) -> DataError:
    """The error of an archive: names it, and advises."""
    return DataError(
        f"Can't use the archive {path}: {problem}. Received: {str(path)!r}. "
        f"Give the official {path.name}; if it is that, download it again."
    )


class _Window:
    """A stretch of an archive as the file that `tarfile` asks for."""

    def __init__(self, archive: Archive, start: int, size: int) -> None:
        self.start, self.size = start, size
        self._archive, self._place = archive, 0

    def at(self, place: int, count: int) -> bytes:
        return self._archive.read(self.start + place, max(0, min(count, self.size - place)))

    def read(self, count: int) -> bytes:
        data = self.at(self._place, count)
        self._place += len(data)
        return data

    def seek(self, place: int) -> int:
        self._place = place
        return place

    def tell(self) -> int:
        return self._place


DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_META = "ILSVRC2012_devkit_t12/data/meta.mat"
_ANSWERS = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True)
class Devkit:
    """What the development kit says.

    Args:
        words: each class's WordNet id → its words, sorted by id: the order of the labels.
        answers: the WordNet id of each validation image, in the order of the sorted file names.
    """

    words: Mapping[str, str]
    answers: tuple[str, ...]

    @property
    def labels(self) -> Mapping[str, int]:
        """The customary label of each class: 1 + its place among the sorted WordNet ids."""
        return {wnid: 1 + place for place, wnid in enumerate(self.words)}


def read_devkit(path: Path) -> Devkit:
    """Read the development kit, in memory.

    Raises:
        DataError: it is missing, truncated, or not the kit of ILSVRC 2012.
    """
    members = _extract(path, (_META, _ANSWERS))
    leaves = _leaves(path, members[_META])
    words = dict(sorted(leaves.values()))
    try:
        answers = tuple(leaves[int(line)][0] for line in members[_ANSWERS].split())
    except (ValueError, KeyError) as error:
        raise _unusable(path, f"{_ANSWERS} has a line that is no class: {error}") from error
    return Devkit(words, answers)


def _extract(path: Path, names: tuple[str, ...]) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                file = archive.extractfile(member) if name in names else None
                if file is not None:
                    found[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise _unusable(path, str(error)) from error
    lacking = [name for name in names if name not in found]
    if lacking:
        raise _unusable(path, f"it lacks {', '.join(lacking)}")
    return found


def _leaves(path: Path, meta: bytes) -> Mapping[int, tuple[str, str]]:
    """ILSVRC2012_ID → WordNet id and words, of the synsets without children."""
    # Slow to import, and only this command needs it.
    from scipy.io import loadmat

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        leaves = {int(row["ILSVRC2012_ID"]): _named(row) for row in synsets if int(row["num_children"]) == 0}
    except Exception as error:  # scipy raises what its parser stumbles over
        raise _unusable(path, f"{_META} isn't the table of synsets ({error})") from error
    if not leaves:
        raise _unusable(path, f"{_META} has no synset without children")
    return leaves


def _named(row: Any) -> tuple[str, str]:
    return str(row["WNID"]), str(row["words"])


def _unusable(path: Path, problem: str) -> DataError:
    return DataError(
        f"Can't read the development kit {path}: {problem}. Received: {str(path)!r}. "
        f"Give the official {DEVKIT}; if it is that, download it again."
    )

"""The images of ILSVRC 2012 and their classes, from the headers of the archives and from the development kit.

`ILSVRC2012_devkit_t12.tar.gz` holds `data/meta.mat`, a struct array `synsets` whose leaves (`num_children` is 0) are
the classes, and `data/ILSVRC2012_validation_ground_truth.txt`, the ILSVRC2012_ID of each validation image in the order
of the file names.
"""

import gzip
import io
import os
import struct
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.imagenet.archive import Archive, Member, archive_error
from keras_qat.errors import DataError
from keras_qat.files import open_file
from keras_qat.progress import track
from keras_qat.text import shortened, size_text

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"

_META = "ILSVRC2012_devkit_t12/data/meta.mat"
_ANSWERS = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"

_MOST_UNPACKED = 2**28
"""The most bytes of the development kit, and of the table in it, unpacked: far more than the official one has."""

_TOO_LARGE = f"unpacked, it has more than {size_text(_MOST_UNPACKED)}"

_MAT_HEADER, _MAT_COMPRESSED = 128, 15

_SHOWN = 5
"""The most missing classes that an error message names."""

_Part = tuple[NDArray[np.bytes_], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]
"""The names, offsets, sizes and labels of some images."""


@dataclass(frozen=True)
class Devkit:
    """The content of the development kit.

    Args:
        words: each class's WordNet id → its words, sorted by id, which is the order of the labels.
        answers: the WordNet id of each validation image, in the order of the sorted file names.
    """

    words: Mapping[str, str]
    answers: tuple[str, ...]

    @property
    def labels(self) -> Mapping[str, int]:
        """The customary label of each class: 1 + its index among the sorted WordNet ids."""
        return {wnid: 1 + i for i, wnid in enumerate(self.words)}


@dataclass(frozen=True, eq=False)
class Listing:
    """The n images of a split, as arrays and not as objects, since there are more than a million.

    Args:
        split: `"train"` or `"validation"`.
        archive: the archive that holds them.
        wnids: the WordNet ids of the classes, in the order of the labels.
        names: bytes (n,): the names of the files.
        offset: int64 (n,): where in the archive the content begins, in bytes.
        size: int64 (n,): the size of the content, in bytes.
        label: int32 (n,): the customary label, which counts from 1.
    """

    split: str
    archive: Archive
    wnids: tuple[str, ...]
    names: NDArray[np.bytes_]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    label: NDArray[np.int32]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.names)

    def name(self, image: int) -> str:
        """The name of an image file."""
        return os.fsdecode(self.names[image])

    def key(self, image: int) -> str:
        """Class and name of an image file, `n01440764/x.JPEG`, since two classes may have files of one name."""
        return f"{self.wnids[self.label[image] - 1]}/{self.name(image)}"

    def content(self, image: int) -> bytes:
        """The content of an image file.

        Raises:
            DataError: If the archive can't be read, or ends within the file.
        """
        return self.archive.content(Member(self.name(image), int(self.offset[image]), int(self.size[image])))


def read_devkit(path: Path) -> Devkit:
    """Read the development kit, in memory.

    Raises:
        DataError: If it is missing, truncated, or not the kit of ILSVRC 2012.
    """
    meta, answers = _extract(path, (_META, _ANSWERS))
    classes = _classes(path, meta)
    try:
        return Devkit(dict(sorted(classes.values())), tuple(classes[int(line)][0] for line in answers.split()))
    except (ValueError, KeyError) as error:
        raise _unusable(path, f"{_ANSWERS} has a line that is no class: {error}") from error


def _extract(path: Path, names: Sequence[str]) -> list[bytes]:
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(_unpack(path)), mode="r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                file = archive.extractfile(member) if name in names else None
                if file is not None:
                    contents[name] = file.read()
    except DataError:
        raise
    except Exception as error:  # `tarfile` raises errors of many classes
        raise _unusable(path, shortened(error)) from error
    lacking = [name for name in names if name not in contents]
    if lacking:
        raise _unusable(path, f"it lacks {', '.join(lacking)}")
    return [contents[name] for name in names]


def _unpack(path: Path) -> bytes:
    """The tar in the gzip file `path`, if it isn't too large."""
    try:
        with open_file(path) as compressed, gzip.open(compressed) as file:
            unpacked = file.read(_MOST_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _unusable(path, shortened(error)) from error
    if len(unpacked) > _MOST_UNPACKED:
        raise _unusable(path, _TOO_LARGE)
    return unpacked


def _classes(path: Path, meta: bytes) -> Mapping[int, tuple[str, str]]:
    """ILSVRC2012_ID → WordNet id and words, of the synsets without children."""
    # Slow to import, and only this command needs it.
    from scipy.io import loadmat

    if _unpacked_size(meta) > _MOST_UNPACKED:
        raise _unusable(path, _TOO_LARGE)
    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        leaves = [row for row in synsets if int(row["num_children"]) == 0]
        classes = {int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"])) for row in leaves}
    except Exception as error:  # scipy raises errors of many classes
        raise _unusable(path, f"{_META} isn't the table of synsets ({error})") from error
    if not classes:
        raise _unusable(path, f"{_META} has no synset without children")
    return classes


def _unpacked_size(meta: bytes) -> int:
    """The size of the compressed elements of a MAT-file of version 5 when they are unpacked, or the limit is passed.

    A header of 128 bytes ends with the order of bytes. Each element has its type and its size before it
    (https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf).
    """
    order = ">" if meta[_MAT_HEADER - 2 : _MAT_HEADER] == b"MI" else "<"
    position, size = _MAT_HEADER, 0
    while position + 8 <= len(meta) and size <= _MOST_UNPACKED:
        kind, length = struct.unpack_from(f"{order}II", meta, position)
        position += 8
        if kind == _MAT_COMPRESSED:
            # A damaged element is the reader's to report.
            with suppress(zlib.error):
                element = meta[position : position + length]
                size += len(zlib.decompressobj().decompress(element, _MOST_UNPACKED + 1))
        position += length
    return size


def _unusable(path: Path, problem: str) -> DataError:
    return DataError(
        f"Can't read the development kit {path}: {problem}. Received: {str(path)!r}. "
        f"Give the official {DEVKIT}; if it is that, download it again."
    )


def list_train(archive: Archive, devkit: Devkit) -> Listing:
    """List the training images, those of each class in a tar of its own within the archive.

    Raises:
        DataError: If the archive is truncated, lacks a class, or holds something else.
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
        DataError: If the archive is truncated, or there are more or fewer images than answers.
    """
    members = sorted(track(archive.members(), f"indexing {VALIDATION}"), key=lambda member: member.name)
    if len(members) != len(devkit.answers):
        raise archive_error(
            archive.path, f"it has {len(members)} images, the development kit has {len(devkit.answers)} answers"
        )
    labels = devkit.labels
    return _listing("validation", archive, devkit, [_part(members, [labels[wnid] for wnid in devkit.answers])])


def _part(members: Iterable[Member], label: int | Sequence[int]) -> _Part:
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

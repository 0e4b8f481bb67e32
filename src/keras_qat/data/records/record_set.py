"""The files of a record set: `NAME-00000-of-00128` and so on, for each split.

Images in TFRecord shards, read one by one in any order.

The shards of one split with their index, ready to be read.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.decode import decode_bytes
from keras_qat.data.image_set import ImageSet
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.records.framing import ADVICE, read_record, record_error, record_problem
from keras_qat.data.records.index import (
    LAYOUTS,
    Layout,
    RecordIndex,
    bytes_of,
    cached_index,
    parse_features,
    scan_shards,
)
from keras_qat.data.sources import Skipped, decoding_reader, digest
from keras_qat.errors import BrokenImageError, DataError

# `train-00000-of-01024`; TensorFlow Datasets writes `imagenet2012-train.tfrecord-00000-of-01024`.
_SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5,})-of-(?P<count>\d{5,})(?P<suffix>(\.tfrecords?)?)")
_SPLIT = re.compile(r"(?:.*[-_.])?(?P<split>train|validation|val|test)(?:\.tfrecords?)?")
_SPLITS: Mapping[str, str] = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_SHOWN = 5


def shard_name(split: str, index: int, count: int) -> str:
    """The customary name of one shard.

    Example:
        >>> shard_name("train", 0, 1024)
        'train-00000-of-01024'
    """
    return f"{split}-{index:05d}-of-{count:05d}"


def has_shards(folder: Path) -> bool:
    """Whether files in `folder` are named as the shards of a split are."""
    return bool(_shards(folder))


def find_shards(folder: Path) -> Mapping[str, tuple[Path, ...]]:
    """The shards of each split (`train`, `validation`, `test`) that `folder` has, in order.

    They may lie in `folder` itself or in folders of it that are named after the split.

    Raises:
        DataError: a shard of a split is missing, or two sets of shards are there for one split.
    """
    sets: dict[tuple[str, str], dict[int, Path]] = defaultdict(dict)
    counts: dict[tuple[str, str], int] = {}
    for path, split, match in _shards(folder):
        key = (split, f"{path.parent / match['stem']}-?????-of-{match['count']}{match['suffix']}")
        sets[key][int(match["index"])] = path
        counts[key] = int(match["count"])
    found: dict[str, tuple[Path, ...]] = {}
    for (split, pattern), shards in sorted(sets.items()):
        if split in found:
            both = ", ".join(sorted(repr(other) for name, other in sets if name == split))
            raise DataError(f"{folder} has two sets of {split} shards. Received: {both}. Keep one of them there.")
        missing = [index for index in range(counts[split, pattern]) if index not in shards]
        if missing:
            raise DataError(
                f"{len(missing)} of {counts[split, pattern]} {split} shards are missing. Received: {pattern!r} without "
                f"{', '.join(map(str, missing[:_SHOWN]))}{', …' if len(missing) > _SHOWN else ''}. "
                "Copy them, too, or make the set anew."
            )
        found[split] = tuple(shards[index] for index in range(counts[split, pattern]))
    return found


def _shards(folder: Path) -> list[tuple[Path, str, re.Match[str]]]:
    """The files of `folder` that are named as shards of a known split, which a TensorFlow checkpoint isn't."""
    folders = [folder, *(folder / name for name in _SPLITS)]
    try:
        paths = [path for place in folders if place.is_dir() for path in sorted(place.iterdir())]
    except OSError as error:
        raise DataError(
            f"Can't list {folder}: {error.strerror}. Received: {str(folder)!r}. Make the folder readable."
        ) from error
    found = []
    for path in paths:
        match = None if path.name.startswith(".") else _SHARD.fullmatch(path.name)
        named = None if match is None else _SPLIT.fullmatch(match["stem"])
        if match is not None and named is not None and path.is_file():
            found.append((path, _SPLITS[named["split"]], match))
    return found


@dataclass(frozen=True, eq=False)
class RecordSource:
    """Images in the records of shards, decoded when they are read.

    Args:
        paths: the shards.
        image: the feature that holds an encoded image.
        shard: int32 (n,): the index in `paths` of each image's shard.
        offset: int64 (n,): where in the shard its record begins, in bytes.
        length: int64 (n,): bytes of the record's payload.
    """

    paths: tuple[str, ...]
    image: str
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.offset)

    def select(self, indices: NDArray[np.int64]) -> "RecordSource":
        """The images at `indices`, in that order."""
        return replace(self, shard=self.shard[indices], offset=self.offset[indices], length=self.length[indices])

    def fingerprint(self) -> str:
        """A digest of the shards' names and of where each record lies."""
        names = "\n".join(Path(path).name for path in self.paths)
        return digest(names.encode(), *(array.tobytes() for array in (self.shard, self.offset, self.length)))

    def reader(self, skipped: Skipped | None = None) -> Callable[[Any], Any]:
        """A function from an index to the decoded image."""
        return decoding_reader(self._decode, skipped)

    def encoded(self, index: int) -> bytes:
        """The bytes of the image file that the record holds.

        Raises:
            DataError: the shard changed since it was indexed.
        """
        path, offset = self.paths[self.shard[index]], int(self.offset[index])
        features = parse_features(read_record(path, offset, int(self.length[index])))
        data = None if features is None else bytes_of(features, self.image)
        if data is None:
            raise record_error(path, offset, f"it has no {self.image!r}")
        return data

    def _decode(self, index: int) -> NDArray[np.uint8]:
        name = f"{self.paths[self.shard[index]]} (record at byte {self.offset[index]})"
        try:
            return decode_bytes(self.encoded(index), name, ADVICE)
        except BrokenImageError as error:
            # Too late to do without: only the records are looked at beforehand, not the images in them.
            raise DataError(str(error)) from error


TRAIN = "train"
"""The split that says which classes there are."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RecordSet:
    """The records of one split.

    Args:
        split: `"train"` or `"validation"`.
        paths: the shards, in order.
        index: of them.
    """

    split: str
    paths: tuple[Path, ...]
    index: RecordIndex

    @property
    def layout(self) -> Layout:
        """Which feature holds what."""
        return next(layout for layout in LAYOUTS if layout.name == self.index.layout)

    def label_error(self, record: int, problem: str) -> DataError:
        """The error of a record's label, which names the record's place."""
        path, offset = self.paths[self.index.shard[record]], int(self.index.offset[record])
        return DataError(record_problem(path, offset, problem, "Make the set anew with labels that fit."))

    def image_set(self, name: str, labels: NDArray[np.int32], preprocessing: Preprocessing) -> ImageSet:
        """The images, under labels from 0 on."""
        index = self.index
        source = RecordSource(tuple(map(str, self.paths)), self.layout.image, index.shard, index.offset, index.length)
        return ImageSet(name, labels, source, preprocessing)


def open_records(split: str, paths: Sequence[Path], *, skip_bad: bool = False, refresh: bool = False) -> RecordSet:
    """Index the shards of a split, or take their index from the cache.

    Args:
        split: what they are.
        paths: the shards, in order.
        skip_bad: pass over the bad records, and log how many there are.
        refresh: read the shards though their index is cached.

    Raises:
        BrokenImageError: a record is bad and `skip_bad` isn't set.
        DataError: the shards can't be read, or hold no good record.
    """
    index = cached_index(paths, lambda: scan_shards(paths, f"indexing {split} records"), refresh=refresh)
    records = RecordSet(split, tuple(paths), index)
    if index.bad:
        _report_bad(records, skip_bad)
    if not len(index):
        raise DataError(f"The {split} shards hold no good record. Received: {paths[0]} … Make the set anew.")
    return records


def _report_bad(records: RecordSet, skip_bad: bool) -> None:
    bad = records.index.bad
    shard, first = bad[0]
    error = record_error(records.paths[shard], first.offset, first.problem)
    if not skip_bad:
        raise BrokenImageError(f"{len(bad)} of the {records.split} records can't be read. The first: {error}")
    _logger.warning("%d bad %s record(s) are passed over. The first: %s", len(bad), records.split, error)
    cut = [records.paths[shard].name for shard, record in bad if record.end is None]
    if cut:
        _logger.warning(
            "%d shard(s) can't be read beyond a broken length, and how many records that loses isn't known: %s",
            len(cut),
            ", ".join(cut),
        )

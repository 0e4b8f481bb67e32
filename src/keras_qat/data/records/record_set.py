"""The shards of one split with their index, ready to be read."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.image_set import ImageSet
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.records.bad_record import record_error, record_problem
from keras_qat.data.records.cache import cached_index
from keras_qat.data.records.index import RecordIndex, scan_shards
from keras_qat.data.records.layout import LAYOUTS, Layout
from keras_qat.data.records.source import RecordSource
from keras_qat.errors import BrokenImageError, DataError

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

"""The images of one split in TFRecord shards, indexed and read one by one in any order."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.data import fingerprint, image_files, sources
from keras_qat.data.image_set import ImageSet
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.records import framing
from keras_qat.data.records.index import RecordIndex, cached_index, scan_shards
from keras_qat.errors import BrokenImageError, DataError

_logger = logging.getLogger(__name__)

TRAIN = "train"
"""The split whose labels say which classes there are."""


_ARRAYS = ("shard", "offset", "length", "crc")
"""What a source takes of an index, an entry for each image."""


@dataclass(frozen=True, eq=False)
class RecordSource:
    """Images in the records of shards, decoded when they are read.

    Args:
        paths: the shards.
        image: the feature that holds an encoded image.
        shard: int32 (n,): the index in `paths` of each image's shard.
        offset: int64 (n,): where in the shard its record begins, in bytes.
        length: int64 (n,): the size of the record's payload in bytes.
        crc: uint32 (n,): the checksum of the record's payload.
    """

    paths: tuple[str, ...]
    image: str
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    crc: NDArray[np.uint32]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.offset)

    def select(self, indices: NDArray[np.int64]) -> "RecordSource":
        """The images at `indices`, in that order."""
        arrays = {name: getattr(self, name)[indices] for name in _ARRAYS}
        return replace(self, **arrays)

    def fingerprint(self) -> str:
        """A digest of the shards' names, of where each record lies, and of its checksum."""
        names = "\n".join(Path(path).name for path in self.paths)
        return fingerprint.digest(names.encode(), *(getattr(self, array).tobytes() for array in _ARRAYS))

    def reader(self, skipped: sources.Skipped | None = None) -> Callable[[Any], Any]:
        """A function from an index to the decoded image."""
        return sources.decoding_reader(self._decode, skipped)

    def encoded(self, index: int) -> bytes:
        """The bytes of the image file that a record holds.

        Raises:
            DataError: If the shard has changed since it was indexed.
        """
        path, offset = self.paths[self.shard[index]], int(self.offset[index])
        features = framing.parse_features(framing.read_record(path, offset, int(self.length[index])))
        data = None if features is None else framing.bytes_of(features, self.image)
        if data is None:
            raise framing.record_error(path, offset, f"it has no {self.image!r}")
        return data

    def _decode(self, index: int) -> NDArray[np.uint8]:
        name = f"{self.paths[self.shard[index]]} (record at byte {self.offset[index]})"
        try:
            return image_files.decode_bytes(self.encoded(index), name, framing.ADVICE)
        except BrokenImageError as error:
            # `skip_bad` does not help here: it looks at the records beforehand, not at the images in them.
            raise DataError(str(error)) from error


@dataclass(frozen=True, eq=False)
class RecordSet:
    """The records of one split.

    Args:
        split: `"train"`, `"validation"` or `"test"`.
        paths: the shards, in order.
        index: the index of the shards.
    """

    split: str
    paths: tuple[Path, ...]
    index: RecordIndex

    @property
    def layout(self) -> framing.Layout:
        """Which feature holds what."""
        return next(layout for layout in framing.LAYOUTS if layout.name == self.index.layout)

    def label_error(self, record: int, problem: str) -> DataError:
        """The error of a record's label, which says where the record is."""
        path, offset = self.paths[self.index.shard[record]], int(self.index.offset[record])
        return DataError(framing.record_problem(path, offset, problem, "Make the set anew with labels that fit."))

    def image_set(self, name: str, labels: NDArray[np.int32], preprocessing: Preprocessing) -> ImageSet:
        """The images, with labels that count from 0."""
        index = self.index
        arrays = {name: getattr(index, name) for name in _ARRAYS}
        source = RecordSource(tuple(map(str, self.paths)), self.layout.image, **arrays)
        return ImageSet(name, labels, source, preprocessing)


def open_records(split: str, paths: Sequence[Path], *, skip_bad: bool = False, refresh: bool = False) -> RecordSet:
    """Index the shards of a split, or take their index from the cache.

    Args:
        split: the name of the split.
        paths: the shards, in order.
        skip_bad: leave out the bad records, and log how many there are.
        refresh: read the shards even if their index is cached.

    Raises:
        BrokenImageError: If a record is bad and `skip_bad` is not set.
        DataError: If the shards can't be read, or hold no good record.
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
    error = framing.record_error(records.paths[shard], first.offset, first.problem)
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

"""The index of a record set: where each record lies and its label, from one reading of all shards.

An index is cached, so that the shards are read through once and not in every run. The file of the cache is named after
a SHA-256 of the shards' paths and sizes, and of when they were modified and last changed in any way, which no program
can set back. Only an index without bad records is cached: shards that
are copied again, modification times included, are then read again.
"""

import hashlib
import json
import logging
import os
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from keras_qat.data.records import framing
from keras_qat.errors import DataError, StorageError
from keras_qat.files import atomic_path, is_file, open_file, parse_json, waiting_lock
from keras_qat.progress import track

_logger = logging.getLogger(__name__)

_MOST_READERS = 8

_FORMAT = 3
"""Raise it whenever the same shards may give another index."""

_ARRAYS = ("shard", "offset", "length", "crc", "label", "synset")


@dataclass(frozen=True, eq=False)
class RecordIndex:
    """Where the n records of some shards lie, and their labels.

    Args:
        layout: the name of their layout.
        shard: int32 (n,): the number of the file.
        offset: int64 (n,): where in the file the record begins, in bytes.
        length: int64 (n,): the size of its payload in bytes.
        crc: uint32 (n,): the checksum of its payload, as the file has it.
        label: int64 (n,): the label as it is written in the record.
        synset: int32 (n,): the index in `synsets`, -1 if a record has none.
        synsets: the WordNet ids, or the words that stand in their place.
        texts: for each label the first text that a record has for it.
        bad: the records that can't be used, each with the number of its file.
    """

    layout: str
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    crc: NDArray[np.uint32]
    label: NDArray[np.int64]
    synset: NDArray[np.int32]
    synsets: tuple[str, ...]
    texts: Mapping[int, str]
    bad: tuple[tuple[int, framing.BadRecord], ...]

    def __len__(self) -> int:
        """The number of good records."""
        return len(self.label)


def cached_index(
    paths: Sequence[Path], scan: Callable[[], RecordIndex], *, folder: Path | None = None, refresh: bool = False
) -> RecordIndex:
    """The index of `paths`: from the cache, or scanned and, if all records are good, put into the cache.

    A cached file that can't be read is scanned again, and a folder that can't be written is only logged.

    Args:
        paths: the shards.
        scan: reads the shards, as `scan_shards` does.
        folder: the folder of the cache; the user's if not given.
        refresh: read the shards even if their index is cached.
    """
    path = (folder or Path(platformdirs.user_cache_path("keras-qat")) / "record-indexes") / f"{_key(paths)}.npz"
    with waiting_lock(path, _logger.info):
        if not refresh and is_file(path):
            try:
                return _load(path)
            except Exception as error:  # noqa: BLE001 - a damaged file fails in as many ways as its bytes
                _logger.warning("The cached index can't be read (%s: %s); reading the shards again.", path, error)
        index = scan()
        if index.bad:
            return index
        try:
            _save(index, path)
        except StorageError as error:
            _logger.warning("The index isn't cached: %s", error)
        return index


def _key(paths: Sequence[Path]) -> str:
    states = [(path.resolve(), path.stat()) for path in paths]
    facts = [(str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns) for path, state in states]
    return hashlib.sha256(json.dumps([_FORMAT, facts]).encode()).hexdigest()


def _save(index: RecordIndex, path: Path) -> None:
    facts = {
        "layout": index.layout,
        "synsets": index.synsets,
        "texts": [[label, text] for label, text in index.texts.items()],
    }
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, facts=np.asarray(json.dumps(facts)), **arrays)


def _load(path: Path) -> RecordIndex:
    # Opened here, since `np.load` leaves a damaged file open.
    with open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
        facts = parse_json(str(arrays["facts"]), "the index")
        return RecordIndex(
            **{name: arrays[name] for name in _ARRAYS},
            layout=facts["layout"],
            synsets=tuple(facts["synsets"]),
            texts=dict(facts["texts"]),
            bad=(),
        )


def scan_shards(paths: Sequence[Path], description: str) -> RecordIndex:
    """Read all records of `paths`, with their checksums.

    Args:
        paths: the shards of one split, in order.
        description: the text of the progress bar.

    Returns:
        The index, including the bad records.

    Raises:
        DataError: If a file can't be read or is compressed, there is no good record, or the first good one is of no
            known layout.
    """
    layout = _layout_of(paths)
    readers = min(_MOST_READERS, len(paths), os.cpu_count() or 1)
    with ThreadPoolExecutor(readers) as executor:
        try:
            scans = list(track(executor.map(lambda path: _scan(path, layout), paths), description, total=len(paths)))
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    synsets = tuple(sorted({word for scan in scans for word in scan.synsets}))
    code = {word: i for i, word in enumerate(synsets)}
    return RecordIndex(
        layout=layout.name,
        shard=np.repeat(np.arange(len(scans), dtype=np.int32), [len(scan.label) for scan in scans]),
        offset=_join(scan.offset for scan in scans),
        length=_join(scan.length for scan in scans),
        crc=_join(scan.crc for scan in scans).astype(np.uint32),
        label=_join(scan.label for scan in scans),
        # A code of -1 takes the last element, which is -1.
        synset=_join(
            np.asarray([*(code[word] for word in scan.synsets), -1])[np.asarray(scan.synset)] for scan in scans
        ).astype(np.int32),
        synsets=synsets,
        # The text of the earliest shard comes last and wins.
        texts={label: text for scan in reversed(scans) for label, text in scan.texts.items()},
        bad=tuple((shard, bad) for shard, scan in enumerate(scans) for bad in scan.bad),
    )


def _layout_of(paths: Sequence[Path]) -> framing.Layout:
    """The layout of the first good record."""
    first_bad: DataError | None = None
    for path in paths:
        for record in framing.scan_records(path):
            if isinstance(record, framing.BadRecord):
                first_bad = first_bad or framing.record_error(path, record.offset, record.problem)
                continue
            features = framing.parse_features(record.payload)
            layout = None if features is None else framing.find_layout(features)
            if layout is not None:
                return layout
            known = " or ".join(f"{layout.image!r} and {layout.label!r}" for layout in framing.LAYOUTS)
            raise DataError(
                f"The records of {path.parent} hold no labelled images that are known here. Received: "
                f"{'no tf.train.Example' if features is None else f'features {sorted(features)}'} in {path.name}. "
                f"Give records with {known}."
            )
    if first_bad is not None:
        # No longer a `BrokenImageError`: without its bad records nothing is left of the set.
        raise DataError(str(first_bad))
    raise DataError(f"The shards hold no record. Received: {str(paths[0])!r} … Make the set anew.")


def _integers() -> "array[int]":
    return array("q")


@dataclass
class _ShardScan:
    """The records of one shard, in arrays that grow, since there may be more than a million.

    `synsets` maps each word to its index, which `synset` holds for each record; -1 if a record has no synset.
    """

    offset: "array[int]" = field(default_factory=_integers)
    length: "array[int]" = field(default_factory=_integers)
    crc: "array[int]" = field(default_factory=_integers)
    label: "array[int]" = field(default_factory=_integers)
    synset: "array[int]" = field(default_factory=_integers)
    synsets: dict[str, int] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    bad: list[framing.BadRecord] = field(default_factory=list)


def _scan(path: Path, layout: framing.Layout) -> _ShardScan:
    scan = _ShardScan()
    synsets = scan.synsets
    for record in framing.scan_records(path):
        if isinstance(record, framing.BadRecord):
            scan.bad.append(record)
            continue
        features = framing.parse_features(record.payload)
        label = None if features is None else framing.integer_of(features, layout.label)
        if features is None or label is None or framing.bytes_of(features, layout.image) is None:
            problem = f"it has no {layout.image!r} and {layout.label!r}"
            scan.bad.append(
                framing.BadRecord(record.offset, problem, record.offset + framing.FRAME_BYTES + len(record.payload))
            )
            continue
        word, text = (framing.bytes_of(features, name) for name in (layout.synset, layout.text))
        scan.offset.append(record.offset)
        scan.length.append(len(record.payload))
        scan.crc.append(record.crc)
        scan.label.append(label)
        scan.synset.append(-1 if word is None else synsets.setdefault(word.decode(errors="replace"), len(synsets)))
        if text is not None:
            scan.texts.setdefault(label, text.decode(errors="replace"))
    return scan


def _join(parts: Iterable[Any]) -> NDArray[np.int64]:
    return np.concatenate([np.asarray(part, np.int64) for part in parts])

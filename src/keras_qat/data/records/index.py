"""Which feature of a `tf.train.Example` holds what: the layouts that record sets have.

The index of a record set: where each record lies, and its class, from one reading of all the shards.

An index is kept, so that the shards are read through once and not in every run.

A file is named after a SHA-256 of the shards' paths, sizes and times of change: other shards, another index. Only an
index without bad records is kept: shards that are copied anew, times and all, are read anew.
"""

import hashlib
import json
import logging
import os
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from keras_qat.data.records.framing import FRAME_BYTES, BadRecord, record_error, scan_records
from keras_qat.errors import DataError, StorageError
from keras_qat.files import atomic_path
from keras_qat.progress import track


@dataclass(frozen=True)
class Layout:
    """The features of one kind of record set.

    Args:
        name: what an error calls it.
        image: the encoded image.
        label: the number of its class.
        first: the number of the first class, or `None` where sets differ and the labels must tell.
        synset: the WordNet id of its class, or a word for it.
        text: its class in words.
    """

    name: str
    image: str
    label: str
    first: int | None = None
    synset: str | None = None
    text: str | None = None


# The first whose image and label a record has is its layout. Add yours here.
LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "customary",
        image="image/encoded",
        label="image/class/label",
        synset="image/class/synset",
        text="image/class/text",
    ),
    Layout("TensorFlow Datasets", image="image", label="label", first=0),
)


def recognise_layout(features: Collection[str]) -> Layout | None:
    """The layout of a record that has these features, if it is a known one.

    Example:
        >>> recognise_layout({"image", "label", "file_name"}).name
        'TensorFlow Datasets'
    """
    return next((layout for layout in LAYOUTS if {layout.image, layout.label} <= set(features)), None)


def parse_features(payload: bytes) -> Any:
    """The features of a serialized `tf.train.Example` by their names, or `None` if it isn't one."""
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


_MOST_READERS = 8


@dataclass(frozen=True, eq=False)
class RecordIndex:
    """Where the n records of some shards lie, and what is said of them.

    Args:
        layout: the name of their layout.
        shard: int32 (n,): the number of the file.
        offset: int64 (n,): in bytes, where the record begins.
        length: int64 (n,): bytes of its payload.
        label: int64 (n,): as it is written there.
        synset: int32 (n,): the index in `synsets`, -1 where a record has none.
        synsets: the words of the synsets.
        texts: for each label the first text that is there for it.
        bad: the records that can't be used, with the number of their file.
    """

    layout: str
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    label: NDArray[np.int64]
    synset: NDArray[np.int32]
    synsets: tuple[str, ...]
    texts: Mapping[int, str]
    bad: tuple[tuple[int, BadRecord], ...]

    def __len__(self) -> int:
        """How many good records there are."""
        return len(self.label)


def _integers() -> "array[int]":
    return array("q")


@dataclass
class _ShardScan:
    """What was found in one shard, in arrays that grow: there are more than a million records.

    `synset` holds places in `synsets`, where each word has the place that it is mapped to; -1 is none.
    """

    offset: "array[int]" = field(default_factory=_integers)
    length: "array[int]" = field(default_factory=_integers)
    label: "array[int]" = field(default_factory=_integers)
    synset: "array[int]" = field(default_factory=_integers)
    synsets: dict[str, int] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    bad: list[BadRecord] = field(default_factory=list)


def scan_shards(paths: Sequence[Path], description: str) -> RecordIndex:
    """Read all the records of `paths`, with their checksums.

    Args:
        paths: the shards of one split, in order.
        description: what a progress bar says is done.

    Returns:
        The index, the bad records among it.

    Raises:
        DataError: a file can't be read or is compressed, there is no good record, or the first one isn't of a
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
        offset=_joined(scan.offset for scan in scans),
        length=_joined(scan.length for scan in scans),
        label=_joined(scan.label for scan in scans),
        # The last of the codes is what -1 becomes.
        synset=_joined(
            np.asarray([*(code[word] for word in scan.synsets), -1])[np.asarray(scan.synset)] for scan in scans
        ).astype(np.int32),
        synsets=synsets,
        # The first text of a label counts: of the earlier shard.
        texts={label: text for scan in reversed(scans) for label, text in scan.texts.items()},
        bad=tuple((shard, bad) for shard, scan in enumerate(scans) for bad in scan.bad),
    )


def _layout_of(paths: Sequence[Path]) -> Layout:
    """The layout of the first good record."""
    first_bad: DataError | None = None
    for path in paths:
        for record in scan_records(path):
            if isinstance(record, BadRecord):
                first_bad = first_bad or record_error(path, record.offset, record.problem)
                continue
            features = parse_features(record.payload)
            layout = None if features is None else recognise_layout(features)
            if layout is not None:
                return layout
            known = " or ".join(f"{layout.image!r} and {layout.label!r}" for layout in LAYOUTS)
            raise DataError(
                f"The records of {path.parent} hold no labelled images that are known here. Received: "
                f"{'no tf.train.Example' if features is None else f'features {sorted(features)}'} in {path.name}. "
                f"Give records with {known}."
            )
    if first_bad is not None:
        # Without it nothing would be left, so it can't be left out.
        raise DataError(str(first_bad))
    raise DataError(f"The shards hold no record. Received: {str(paths[0])!r} … Make the set anew.")


def _scan(path: Path, layout: Layout) -> _ShardScan:
    found = _ShardScan()
    for record in scan_records(path):
        if isinstance(record, BadRecord):
            found.bad.append(record)
            continue
        features = parse_features(record.payload)
        label = None if features is None else integer_of(features, layout.label)
        if features is None or label is None or bytes_of(features, layout.image) is None:
            problem = f"it has no {layout.image!r} and {layout.label!r}"
            found.bad.append(BadRecord(record.offset, problem, record.offset + FRAME_BYTES + len(record.payload)))
            continue
        word, text = (bytes_of(features, name) for name in (layout.synset, layout.text))
        found.offset.append(record.offset)
        found.length.append(len(record.payload))
        found.label.append(label)
        synsets = found.synsets
        found.synset.append(-1 if word is None else synsets.setdefault(word.decode(errors="replace"), len(synsets)))
        if text is not None:
            found.texts.setdefault(label, text.decode(errors="replace"))
    return found


def _joined(parts: Iterable[Any]) -> NDArray[np.int64]:
    return np.concatenate([np.asarray(part, np.int64) for part in parts])


_logger = logging.getLogger(__name__)

_FORMAT = 2
"""Raise it whenever the same shards may give another index."""

_ARRAYS = ("shard", "offset", "length", "label", "synset")


def cached_index(
    paths: Sequence[Path],
    scan: Callable[[], RecordIndex],
    *,
    folder: Path | None = None,
    refresh: bool = False,
) -> RecordIndex:
    """The index of `paths`, from the cache if it is there, else scanned and, if all records are good, put there.

    A file that can't be read is scanned again; a folder that can't be written costs a warning.

    Args:
        paths: the shards.
        scan: what reads them.
        folder: of the cache; the user's if not given.
        refresh: read the shards in any case.
    """
    path = (folder or Path(platformdirs.user_cache_path("keras-qat")) / "record-indexes") / f"{_key(paths)}.npz"
    if not refresh and path.exists():
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
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(json.dumps([_FORMAT, facts]).encode()).hexdigest()


def _save(index: RecordIndex, path: Path) -> None:
    facts = {
        "layout": index.layout,
        "synsets": index.synsets,
        "texts": [[label, text] for label, text in index.texts.items()],
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary, facts=np.asarray(json.dumps(facts)), **{name: getattr(index, name) for name in _ARRAYS}
        )


def _load(path: Path) -> RecordIndex:
    # Opened here, since `np.load` leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        facts = json.loads(str(arrays["facts"]))
        return RecordIndex(
            **{name: arrays[name] for name in _ARRAYS},
            layout=facts["layout"],
            synsets=tuple(facts["synsets"]),
            texts=dict(facts["texts"]),
            bad=(),
        )

"""The index of a record set: where each record lies, and its class, from one reading of all the shards."""

import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.records.bad_record import BadRecord, record_error
from keras_qat.data.records.framing import FRAME_BYTES, scan_records
from keras_qat.data.records.layout import LAYOUTS, Layout, bytes_of, integer_of, parse_features, recognise_layout
from keras_qat.errors import DataError
from keras_qat.progress import track

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

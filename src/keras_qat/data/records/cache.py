"""An index is kept, so that the shards are read through once and not in every run.

A file is named after a SHA-256 of the shards' paths, sizes and times of change: other shards, another index. Only an
index without bad records is kept: shards that are copied anew, times and all, are read anew.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import platformdirs

from keras_qat.data.records.index import RecordIndex
from keras_qat.errors import StorageError
from keras_qat.storage import atomic_path

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

"""The files of a record set: `NAME-00000-of-00128` and so on, for each split."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from keras_qat.errors import DataError

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

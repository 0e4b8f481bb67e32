"""Which files of a folder are TFRecord shards, told by their names: `NAME-00000-of-00128` and so on for each split."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from keras_qat.data.image_files import visible
from keras_qat.errors import DataError
from keras_qat.files import is_folder

# `train-00000-of-01024`; TensorFlow Datasets writes `imagenet2012-train.tfrecord-00000-of-01024`.
_SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5,})-of-(?P<count>\d{5,})(?P<suffix>(\.tfrecords?)?)")
_SPLIT = re.compile(r"(?:.*[-_.])?(?P<split>train|validation|val|test)(?:\.tfrecords?)?")
_SPLITS: Mapping[str, str] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}

_SHOWN = 5
"""The most missing shards that an error message names."""


def shard_name(split: str, index: int, count: int) -> str:
    """The customary name of one shard.

    Example:
        >>> shard_name("train", 0, 1024)
        'train-00000-of-01024'
    """
    return f"{split}-{index:05d}-of-{count:05d}"


def has_shards(folder: Path) -> bool:
    """Whether a folder has files that are named as the shards of a split.

    Raises:
        DataError: If the folder can't be listed.
    """
    return bool(_list_shards(folder))


def find_shards(folder: Path) -> Mapping[str, tuple[Path, ...]]:
    """The shards of each split (`train`, `validation`, `test`) that `folder` has, in order.

    They may lie in `folder` itself or in folders of it that are named after the split.

    Raises:
        DataError: If a shard of a split is missing, or there are two sets of shards for one split.
    """
    sets: dict[tuple[str, str], dict[int, Path]] = defaultdict(dict)
    counts: dict[tuple[str, str], int] = {}
    for path, split, match in _list_shards(folder):
        key = (split, f"{path.parent / match['stem']}-?????-of-{match['count']}{match['suffix']}")
        sets[key][int(match["index"])] = path
        counts[key] = int(match["count"])
    splits: dict[str, tuple[Path, ...]] = {}
    for (split, pattern), shards in sorted(sets.items()):
        count = counts[split, pattern]
        if split in splits:
            both = ", ".join(sorted(repr(other) for name, other in sets if name == split))
            raise DataError(f"{folder} has two sets of {split} shards. Received: {both}. Keep one of them there.")
        missing = [index for index in range(count) if index not in shards]
        if missing:
            raise DataError(
                f"{len(missing)} of {count} {split} shards are missing. Received: {pattern!r} without "
                f"{', '.join(map(str, missing[:_SHOWN]))}{', …' if len(missing) > _SHOWN else ''}. "
                "Copy them, too, or make the set anew."
            )
        splits[split] = tuple(shards[index] for index in range(count))
    return splits


def _list_shards(folder: Path) -> list[tuple[Path, str, re.Match[str]]]:
    """The files that are named as the shards of a known split; those of a TensorFlow checkpoint are not."""
    folders = [folder, *(folder / name for name in _SPLITS)]
    entries = [entry for place in folders if is_folder(place, DataError) for entry in visible(place)]
    return [
        (Path(entry.path), _SPLITS[split["split"]], shard)
        for entry in entries
        if (shard := _SHARD.fullmatch(entry.name)) and (split := _SPLIT.fullmatch(shard["stem"])) and entry.is_file
    ]

"""From the labels that records carry to 0, 1, 2 …, and the names of the classes.

The first rule that applies numbers the classes of all splits:

1. every record has the synset of one of ImageNet's classes: that class, whatever its label is, if each synset has one
   label and each label one synset;
2. the set has a file of class names, as TensorFlow Datasets writes it: labels are lines of it;
3. labels are numbers; those of the training records say which classes there are.

By 2 and 3 the first class has the layout's first label. Where that differs from set to set, it is 0 if one of the
labels is 0. Else it is 1 if these are the training records', or if the file has as many lines as the highest label
says; the labels of validation records alone may count from either.

A folder of TFRecord shards as sets of images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.image_files import imagenet_classes
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.records.index import RecordIndex
from keras_qat.data.records.record_set import TRAIN, RecordSet, find_shards, open_records
from keras_qat.data.splits import Labelled, Splits, hold_out
from keras_qat.errors import DataError
from keras_qat.files import read_text

_MOST_CLASSES = 1_000_000
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Numbering:
    """The labels of each split, from 0 on, and the names of the classes.

    Args:
        labels: int32 arrays, one for each record set that was given.
        class_names: one name for each class; empty where nothing says which classes there are.
    """

    labels: tuple[NDArray[np.int32], ...]
    class_names: tuple[str, ...]


def number_labels(sets: Sequence[RecordSet], label_names: Sequence[str] | None = None) -> Numbering:
    """Number the labels of all splits alike.

    Args:
        sets: the splits, the training records first if they are there.
        label_names: the lines of the file of class names, if there is one.

    Raises:
        DataError: a label is no class's, or contradicts its record's synset, or labels may count from 0 or from 1.
    """
    if all(map(_names_imagenet, sets)):
        return Numbering(tuple(_by_synset(records) for records in sets), tuple(imagenet_classes().values()))
    if label_names is not None:
        return _by_names(sets, label_names)
    return _by_number(sets)


def numbers_itself(records: RecordSet, label_names: Sequence[str] | None) -> bool:
    """Whether the labels of a split can be numbered without another split."""
    return _names_imagenet(records) or (label_names is not None and records.layout.first is not None)


def _names_imagenet(records: RecordSet) -> bool:
    index = records.index
    return bool((index.synset >= 0).all()) and set(index.synsets) <= set(imagenet_classes())


def _by_synset(records: RecordSet) -> NDArray[np.int32]:
    """The label that each record's synset has in ImageNet."""
    index = records.index
    position = {wnid: i for i, wnid in enumerate(imagenet_classes())}
    written, rank = np.unique(index.label, return_inverse=True)
    keys, first, counts = np.unique(
        index.synset.astype(np.int64) * len(written) + rank, return_index=True, return_counts=True
    )
    # Pairs of synset and label; each must be the only one of both.
    synset, label = keys // len(written), keys % len(written)
    wrong = np.flatnonzero((np.bincount(synset)[synset] > 1) | (np.bincount(label)[label] > 1))
    if len(wrong):
        odd = wrong[np.argmin(counts[wrong])]
        labels = ", ".join(map(str, written[label[synset == synset[odd]]][:_SHOWN]))
        synsets = ", ".join(index.synsets[i] for i in synset[label == label[odd]][:_SHOWN])
        raise records.label_error(
            int(first[odd]),
            f"its label {written[label[odd]]} contradicts its synset {index.synsets[synset[odd]]!r}: in all records, "
            f"that synset has the label(s) {labels}, and that label the synset(s) {synsets}",
        )
    return np.asarray([position[wnid] for wnid in index.synsets], np.int32)[index.synset]


def _by_names(sets: Sequence[RecordSet], names: Sequence[str]) -> Numbering:
    first = _first_label(sets[0], len(names))
    for records in sets:
        _require_range(records, first, first + len(names) - 1, f"the file of class names has {len(names)} lines")
    labels = tuple((records.index.label - first).astype(np.int32) for records in sets)
    if not set(names) <= set(imagenet_classes()):
        return Numbering(labels, tuple(names))
    position = {wnid: i for i, wnid in enumerate(imagenet_classes())}
    classes = np.asarray([position[wnid] for wnid in names], np.int32)
    return Numbering(tuple(classes[each] for each in labels), tuple(imagenet_classes().values()))


def _by_number(sets: Sequence[RecordSet]) -> Numbering:
    source = sets[0]
    first = _first_label(source)
    _require_range(source, first, first + _MOST_CLASSES - 1, f"labels count from {first}")
    last = int(source.index.label.max())
    for records in sets[1:]:
        _require_range(records, first, last, f"the {source.split} records have labels {first} to {last}")
    names: dict[int, str] = {}
    for records in reversed(sets):
        names |= _names(records.index)
    return Numbering(
        tuple((records.index.label - first).astype(np.int32) for records in sets),
        tuple(names.get(label, str(label)) for label in range(first, last + 1)) if source.split == TRAIN else (),
    )


def _first_label(records: RecordSet, lines: int | None = None) -> int:
    """The label of the first class; `lines` is how many the file of class names has."""
    if records.layout.first is not None:
        return records.layout.first
    label = records.index.label
    if (label == 0).any():
        return 0
    if records.split == TRAIN or label.max() == lines:
        return 1
    raise DataError(
        f"Nothing says whether the labels of the {records.split} records count from 0 or from 1. Received: labels from "
        f"{label.min()} to {label.max()}, none of them 0, in {records.paths[0].parent}. Put the training shards there; "
        "or, if the last class has a record, a file label.labels.txt with the name of one class in each line."
    )


def _names(index: RecordIndex) -> dict[int, str]:
    """The name of each label that has one: its text, else its synset."""
    labels, first = np.unique(index.label, return_index=True)
    codes = index.synset[first]
    synsets = {int(label): index.synsets[code] for label, code in zip(labels, codes, strict=True) if code >= 0}
    return synsets | dict(index.texts)


def _require_range(records: RecordSet, first: int, last: int, expected: str) -> None:
    label = records.index.label
    wrong = np.flatnonzero((label < first) | (label > last))
    if len(wrong):
        raise records.label_error(int(wrong[0]), f"its label {label[wrong[0]]} is out of range: {expected}")


# The split that judges: the first that is there.
_JUDGES = ("validation", "test")


def load_records(
    folder: str | Path, preprocessing: Preprocessing, seed: int, skip_bad: bool = False, *, name: str | None = None
) -> Splits:
    """Load images from TFRecord shards such as `train-00000-of-01024` and `validation-00000-of-00128`.

    The shards are read through once and their index is cached; images are then read one by one, in any order. Labels
    are numbered from 0 on, as `keras_qat.data.records.labels` says. A tenth of the training images, but at most 5000,
    as stratified as it can be, is held out for selection.

    Args:
        folder: of the shards, as `keras-qat prepare-imagenet` or TensorFlow Datasets writes them.
        preprocessing: of the network.
        seed: of the selection.
        skip_bad: pass over corrupt records, and log how many there are.
        name: what a report calls the set; that of the folder if not given.

    Returns:
        The three sets. With TensorFlow Datasets, `test` judges where there is no `validation`.

    Raises:
        DataError: a split or a shard is missing, a record is corrupt or of no known layout, or a label is wrong.
    """
    root = Path(folder)
    shards = find_shards(root)
    _require_split(root, shards, (TRAIN,))
    judge = _require_split(root, shards, _JUDGES)
    train, validation = (open_records(split, shards[split], skip_bad=skip_bad) for split in (TRAIN, judge))
    numbering = number_labels(_alike(root, train, validation), _label_names(root))
    name = name or root.resolve().name
    whole = train.image_set(f"{name}/train", numbering.labels[0], preprocessing)
    kept, selection = hold_out(whole, f"{name}/selection", root, seed)
    return Splits(
        name=name,
        train=kept,
        selection=selection,
        validation=validation.image_set(f"{name}/{judge}", numbering.labels[1], preprocessing),
        num_classes=len(numbering.class_names),
        class_names=numbering.class_names,
    )


def load_records_validation(
    folder: str | Path, preprocessing: Preprocessing, skip_bad: bool = False, *, name: str | None = None
) -> Labelled:
    """Load the validation images of TFRecord shards; training shards are read only if the labels need them.

    Args:
        folder: of the shards; those of the validation are enough.
        preprocessing: of the network.
        skip_bad: as for `load_records`.
        name: likewise.

    Returns:
        The images; without names of classes where the validation alone says which classes there are.

    Raises:
        DataError: as from `load_records`, of what is read here; or nothing says from which number labels count.
    """
    root = Path(folder)
    shards = find_shards(root)
    judge = _require_split(root, shards, _JUDGES)
    validation = open_records(judge, shards[judge], skip_bad=skip_bad)
    names = _label_names(root)
    sets: tuple[RecordSet, ...] = (validation,)
    if TRAIN in shards and not numbers_itself(validation, names):
        sets = _alike(root, open_records(TRAIN, shards[TRAIN], skip_bad=skip_bad), validation)
    numbering = number_labels(sets, names)
    images = validation.image_set(f"{name or root.resolve().name}/{judge}", numbering.labels[-1], preprocessing)
    return Labelled(images, numbering.class_names, len(validation.index.bad))


def _require_split(root: Path, shards: Mapping[str, Sequence[Path]], names: Sequence[str]) -> str:
    """The first of `names` that there are shards of."""
    for name in names:
        if name in shards:
            return name
    raise DataError(
        f"{root} has no shards of {' or '.join(map(repr, names))}. Received: "
        f"{', '.join(map(repr, sorted(shards))) or 'no split of a known name'}. "
        "Add files named train-00000-of-01024 and validation-00000-of-00128, or NAME-train.tfrecord-00000-of-01024."
    )


def _alike(root: Path, train: RecordSet, validation: RecordSet) -> tuple[RecordSet, RecordSet]:
    if train.layout != validation.layout:
        raise DataError(
            f"The splits of {root} have records of two layouts. Received: {train.layout.name!r} to train, "
            f"{validation.layout.name!r} to validate. Give both the same."
        )
    return train, validation


def _label_names(root: Path) -> tuple[str, ...] | None:
    """The file of class names that TensorFlow Datasets writes, a class each line."""
    path = root / "label.labels.txt"
    if not path.is_file():
        return None
    return tuple(line.strip() for line in read_text(path).split("\n") if line.strip())

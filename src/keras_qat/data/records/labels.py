"""From the labels that records carry to 0, 1, 2 …, and the names of the classes.

The first rule that applies numbers the classes of all splits:

1. If every record has the synset of one of ImageNet's classes, that is its class, whatever its label is. Each synset
   must have one label and each label one synset.
2. If the set has a file of class names, as TensorFlow Datasets writes it, labels are lines of it.
3. Otherwise labels are numbers, and those of the training records say which classes there are.

By rules 2 and 3 the first class has the layout's first label. If that differs from set to set, it is 0 if one of the
labels is 0. Otherwise it is 1 if these are the training records' labels, or if the file has as many lines as the
highest label says. The labels of validation records alone may count from either.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.class_numbers import imagenet_classes
from keras_qat.data.records.index import RecordIndex
from keras_qat.data.records.record_set import TRAIN, RecordSet
from keras_qat.errors import DataError

MOST_CLASSES = 1_000_000

_SHOWN = 3
"""The most labels and synsets that an error message names."""


@dataclass(frozen=True, eq=False)
class Numbering:
    """The labels of each split, counted from 0, and the names of the classes.

    Args:
        labels: int32 arrays of shape (n,), one for each record set that was given.
        class_names: one name for each class; empty if nothing says which classes there are.
    """

    labels: tuple[NDArray[np.int32], ...]
    class_names: tuple[str, ...]


def number_labels(sets: Sequence[RecordSet], label_names: Sequence[str] | None = None) -> Numbering:
    """Number the labels of all splits alike.

    Args:
        sets: the splits; the training records come first if there are any.
        label_names: the lines of the file of class names, if there is one.

    Raises:
        DataError: If a label belongs to no class or contradicts its record's synset, or nothing says whether labels
            count from 0 or from 1.
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
    # The pairs of synset and label that occur. A synset must have one label, and a label one synset.
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
    return Numbering(tuple(classes[lines] for lines in labels), tuple(imagenet_classes().values()))


def _by_number(sets: Sequence[RecordSet]) -> Numbering:
    source = sets[0]
    first = _first_label(source)
    _require_range(source, first, first + MOST_CLASSES - 1, f"labels count from {first}")
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
    """The label of the first class; `lines` is the number of lines in the file of class names."""
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
    """The name of each label that has one: its text, or else its synset."""
    labels, first = np.unique(index.label, return_index=True)
    codes = index.synset[first]
    synsets = {int(label): index.synsets[code] for label, code in zip(labels, codes, strict=True) if code >= 0}
    return synsets | dict(index.texts)


def _require_range(records: RecordSet, first: int, last: int, expected: str) -> None:
    label = records.index.label
    wrong = np.flatnonzero((label < first) | (label > last))
    if len(wrong):
        raise records.label_error(int(wrong[0]), f"its label {label[wrong[0]]} is out of range: {expected}")

"""From the labels that records carry to 0, 1, 2 …, and the names of the classes.

The first rule that applies numbers the classes of all splits:

1. every record has the synset of one of ImageNet's classes: that class (and the labels mustn't contradict);
2. the set has a file of class names, as TensorFlow Datasets writes it: labels are lines of it;
3. labels are numbers, from the layout's first on, else from 0 if one of them is 0 and from 1 if none is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.imagenet import imagenet_classes
from keras_qat.data.records.index import RecordIndex
from keras_qat.data.records.record_set import RecordSet

_MOST_CLASSES = 1_000_000


@dataclass(frozen=True, eq=False)
class Numbering:
    """The labels of each split, from 0 on, and the names of the classes.

    Args:
        labels: int32 arrays, one for each record set that was given.
        class_names: one name for each class.
    """

    labels: tuple[NDArray[np.int32], ...]
    class_names: tuple[str, ...]


def number_labels(sets: Sequence[RecordSet], label_names: Sequence[str] | None = None) -> Numbering:
    """Number the labels of all splits alike.

    Args:
        sets: the splits; the first one says which classes there are where nothing else does.
        label_names: the lines of the file of class names, if there is one.

    Raises:
        DataError: a label is no class's, or contradicts its record's synset.
    """
    if all(map(_names_imagenet, sets)):
        return Numbering(tuple(_by_synset(records) for records in sets), tuple(imagenet_classes().values()))
    if label_names is not None and sets[0].layout.first is not None:
        return _by_names(sets, label_names)
    return _by_number(sets)


def numbers_itself(records: RecordSet, label_names: Sequence[str] | None) -> bool:
    """Whether the labels of a split can be numbered without another split."""
    return _names_imagenet(records) or (label_names is not None and records.layout.first is not None)


def _names_imagenet(records: RecordSet) -> bool:
    index = records.index
    return bool((index.synset >= 0).all()) and set(index.synsets) <= set(imagenet_classes())


def _by_synset(records: RecordSet) -> NDArray[np.int32]:
    """The label that each record's synset has in ImageNet.

    The labels as written may count from 0 or 1, and over the 1000 classes or only over those of the set; in any case
    each class has one label, and they ascend with the synsets.
    """
    index = records.index
    position = {wnid: i for i, wnid in enumerate(imagenet_classes())}
    classes = np.asarray([position[wnid] for wnid in index.synsets], np.int32)[index.synset]
    written, rank = np.unique(index.label, return_inverse=True)
    keys, first, counts = np.unique(
        classes.astype(np.int64) * len(written) + rank, return_index=True, return_counts=True
    )
    # Pairs of class and label, sorted. Where not both ascend, the rarer of two neighbours is the odd one.
    pairs = np.stack([keys // len(written), keys % len(written)])
    wrong = np.flatnonzero((np.diff(pairs) <= 0).any(axis=0))
    if len(wrong):
        record = int(first[min(wrong[0], wrong[0] + 1, key=lambda pair: int(counts[pair]))])
        raise records.label_error(
            record,
            f"its label {index.label[record]} contradicts its synset {index.synsets[index.synset[record]]!r}, "
            "by what other records say",
        )
    return classes


def _by_names(sets: Sequence[RecordSet], names: Sequence[str]) -> Numbering:
    for records in sets:
        _require_range(records, 0, len(names) - 1, f"the file of class names has {len(names)} lines")
    labels = tuple(records.index.label.astype(np.int32) for records in sets)
    if not set(names) <= set(imagenet_classes()):
        return Numbering(labels, tuple(names))
    position = {wnid: i for i, wnid in enumerate(imagenet_classes())}
    classes = np.asarray([position[wnid] for wnid in names], np.int32)
    return Numbering(tuple(classes[each] for each in labels), tuple(imagenet_classes().values()))


def _by_number(sets: Sequence[RecordSet]) -> Numbering:
    source = sets[0]
    first = source.layout.first
    if first is None:
        first = 0 if (source.index.label == 0).any() else 1
    _require_range(source, first, first + _MOST_CLASSES - 1, f"labels count from {first}")
    last = int(source.index.label.max())
    for records in sets[1:]:
        _require_range(records, first, last, f"the {source.split} records have labels {first} to {last}")
    names: dict[int, str] = {}
    for records in reversed(sets):
        names |= _names(records.index)
    return Numbering(
        tuple((records.index.label - first).astype(np.int32) for records in sets),
        tuple(names.get(label, str(label)) for label in range(first, last + 1)),
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

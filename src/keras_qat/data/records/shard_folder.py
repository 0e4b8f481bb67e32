"""A folder of TFRecord shards, `NAME-00000-of-00128` and so on for each split, as a data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.records import labels, record_set
from keras_qat.data.records.shard_names import find_shards
from keras_qat.data.splits import Labelled, Splits, hold_out
from keras_qat.errors import DataError
from keras_qat.files import is_there, read_text

_JUDGES = ("validation", "test")
"""The splits that may judge a network: the first that a folder has."""


def load_records(
    folder: str | Path, preprocessing: Preprocessing, seed: int, skip_bad: bool = False, *, name: str | None = None
) -> Splits:
    """Load images from TFRecord shards such as `train-00000-of-01024` and `validation-00000-of-00128`.

    The shards are read through once and their index is cached; images are then read one by one, in any order. Labels
    are numbered from 0 on, as `keras_qat.data.records.labels` describes. A tenth of the training images, at most 5000,
    as stratified as possible, is held out for selection.

    Args:
        folder: the folder of the shards, as `keras-qat prepare-imagenet` or TensorFlow Datasets writes them.
        preprocessing: the preprocessing of the network.
        seed: the seed of the selection.
        skip_bad: leave out corrupt records, and log how many there are.
        name: what a report calls the data set; the name of the folder if not given.

    Returns:
        The three sets. If there is no `validation` split, `test` takes its place.

    Raises:
        BrokenImageError: If a record is corrupt and `skip_bad` is not set.
        DataError: If a split or a shard is missing, the records are of no known layout, or a label is wrong.
    """
    root = Path(folder)
    shards = find_shards(root)
    _first_split(root, shards, (record_set.TRAIN,))
    judge = _first_split(root, shards, _JUDGES)
    train, validation = (
        record_set.open_records(split, shards[split], skip_bad=skip_bad) for split in (record_set.TRAIN, judge)
    )
    _require_alike(root, train, validation)
    numbering = labels.number_labels((train, validation), _class_names(root))
    train_labels, validation_labels = numbering.labels
    name = name or root.resolve().name
    images = train.image_set(f"{name}/train", train_labels, preprocessing)
    kept, selection = hold_out(train_labels, root, seed)
    return Splits(
        name=name,
        train=images.select(kept),
        selection=images.select(selection, f"{name}/selection"),
        validation=validation.image_set(f"{name}/{judge}", validation_labels, preprocessing),
        num_classes=len(numbering.class_names),
        class_names=numbering.class_names,
    )


def load_records_validation(
    folder: str | Path, preprocessing: Preprocessing, skip_bad: bool = False, *, name: str | None = None
) -> Labelled:
    """Load the validation images of TFRecord shards; training shards are read only if the labels need them.

    Args:
        folder: the folder of the shards; the validation shards are enough.
        preprocessing: the preprocessing of the network.
        skip_bad: as for `load_records`.
        name: as for `load_records`.

    Returns:
        The images. They have no class names if only the validation images say which classes there are.

    Raises:
        BrokenImageError: As for `load_records`.
        DataError: As for `load_records`, or if nothing says whether labels count from 0 or from 1.
    """
    root = Path(folder)
    shards = find_shards(root)
    judge = _first_split(root, shards, _JUDGES)
    validation = record_set.open_records(judge, shards[judge], skip_bad=skip_bad)
    names = _class_names(root)
    sets: tuple[record_set.RecordSet, ...] = (validation,)
    if record_set.TRAIN in shards and not labels.numbers_itself(validation, names):
        train = record_set.open_records(record_set.TRAIN, shards[record_set.TRAIN], skip_bad=skip_bad)
        _require_alike(root, train, validation)
        sets = (train, validation)
    numbering = labels.number_labels(sets, names)
    images = validation.image_set(f"{name or root.resolve().name}/{judge}", numbering.labels[-1], preprocessing)
    return Labelled(images, numbering.class_names, len(validation.index.bad))


def _first_split(root: Path, shards: Mapping[str, Sequence[Path]], names: Sequence[str]) -> str:
    """The first of `names` that there are shards of."""
    for name in names:
        if name in shards:
            return name
    raise DataError(
        f"{root} has no shards of {' or '.join(map(repr, names))}. Received: "
        f"{', '.join(map(repr, sorted(shards))) or 'no split of a known name'}. "
        "Add files named train-00000-of-01024 and validation-00000-of-00128, or NAME-train.tfrecord-00000-of-01024."
    )


def _require_alike(root: Path, train: record_set.RecordSet, validation: record_set.RecordSet) -> None:
    if train.layout != validation.layout:
        raise DataError(
            f"The splits of {root} have records of two layouts. Received: {train.layout.name!r} to train, "
            f"{validation.layout.name!r} to validate. Give both the same."
        )


def _class_names(root: Path) -> tuple[str, ...] | None:
    """The lines of the file of class names that TensorFlow Datasets writes."""
    path = root / "label.labels.txt"
    if not is_there(path, DataError):
        return None
    names = tuple(line.strip() for line in read_text(path).split("\n") if line.strip())
    if not 0 < len(names) <= labels.MOST_CLASSES:
        raise DataError(
            f"The file of class names has from 1 to {labels.MOST_CLASSES:,} lines. Received: {str(path)!r} with "
            f"{len(names):,}. Write the name of one class into each line, or remove the file."
        )
    return names

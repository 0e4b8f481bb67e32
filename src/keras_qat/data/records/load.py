"""A folder of TFRecord shards as sets of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_qat.data.hold_out import hold_out
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.records.labels import number_labels, numbers_itself
from keras_qat.data.records.record_set import TRAIN, RecordSet, open_records
from keras_qat.data.records.shards import find_shards
from keras_qat.data.splits import Labelled, Splits
from keras_qat.errors import DataError
from keras_qat.storage import read_text

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

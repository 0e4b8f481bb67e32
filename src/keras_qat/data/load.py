"""A data set by its name or its folder: the embedded digits, `tfds:NAME`, TFRecord shards, or a folder of images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat.data import folders, image_set, names
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.records.shard_folder import has_shards, load_records, load_records_validation
from keras_qat.data.splits import Labelled, Splits
from keras_qat.errors import DataError
from keras_qat.files import is_folder

_INK_LEVELS = 16
_VALIDATION_SHARE = 0.2
_SELECTION_SHARE = 0.1

Source = str | Path


def load_data(
    source: Source,
    preprocessing: Preprocessing,
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
) -> Splits:
    """Load a data set and cut it into training, selection and validation images.

    Args:
        source: the name of an embedded data set (`"digits"`), `"tfds:NAME"` for a data set of TensorFlow Datasets, a
            folder of TFRecord shards (`load_records`), or a folder of images, already cut into `train/CLASS/` and
            `val/CLASS/` or not, with or without class folders. A folder that has the name of a data set is given as
            `./digits`.
        preprocessing: the preprocessing of the network that will read the images.
        seed: the seed of the cut.
        skip_bad: leave out the images that are found to be broken now, and log how many there are. Give
            `ImageSet.batches` a `Skipped` for those that are found later.
        num_classes: the number of classes of the model, if it is known. It decides how class folders named by WordNet
            ids are numbered: as ImageNet's 1000 classes, or from 0 on. 0 if labels do not matter.

    Returns:
        The three sets.

    Raises:
        DataError: If `source` is neither a known name nor a folder, or its images can't be read.

    Example:
        >>> load_data("digits", Preprocessing("tf", 32, 32), seed=0).num_classes
        10
    """
    return _kind(source).splits(source, preprocessing, seed, skip_bad, num_classes)


def load_validation(
    source: Source,
    preprocessing: Preprocessing,
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
) -> Labelled:
    """Load the validation images alone, of a data set that need not have any others.

    They are those of `load_data(…).validation`, with the same labels.

    Args:
        source: as for `load_data`; a folder may have only `val/`, or only validation shards.
        preprocessing: the preprocessing of the network that will read the images.
        seed: the seed of the cut. Give that of the run if the data set is cut here: with another seed, images that the
            run calibrated with would judge it.
        skip_bad: as for `load_data`.
        num_classes: as for `load_data`.

    Returns:
        The images, and the names of the classes.

    Raises:
        DataError: As for `load_data`.

    Example:
        >>> validation = load_validation("digits", Preprocessing("tf", 32, 32), seed=0)
        >>> len(validation.images), validation.class_names[:3]
        (360, ('0', '1', '2'))
    """
    return _kind(source).validation(source, preprocessing, seed, skip_bad, num_classes)


def _load_digits(preprocessing: Preprocessing, seed: int) -> Splits:
    """Load scikit-learn's 1797 handwritten digits, which are installed with it: nothing is downloaded.

    70% train, 10% choose the best epoch, 20% validate, stratified: 1257, 180 and 360 images of ten classes. The 8x8
    images are kept as they are and resized to the network's input as they are read.
    """
    # Slow to import, and only this data set needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    gray = np.rint(digits.images * (255 / _INK_LEVELS)).astype(np.uint8)
    images = image_set.ImageSet.from_arrays(
        "digits", np.repeat(gray[..., np.newaxis], 3, axis=-1), digits.target, preprocessing
    )
    indices, labels = np.arange(len(images)), images.labels
    rest, validation = train_test_split(indices, test_size=_VALIDATION_SHARE, stratify=labels, random_state=seed)
    train, selection = train_test_split(
        rest, test_size=round(_SELECTION_SHARE * len(indices)), stratify=labels[rest], random_state=seed
    )
    return Splits(
        name="digits",
        train=images.select(train, "digits/train"),
        selection=images.select(selection, "digits/selection"),
        validation=images.select(validation, "digits/validation"),
        num_classes=10,
        class_names=tuple(str(name) for name in digits.target_names),
    )


DATA_SETS: dict[str, Callable[[Preprocessing, int], Splits]] = {"digits": _load_digits}
"""The data sets that need no folder. Add yours here, and its name to `names.EMBEDDED`."""


def _is_embedded(source: Source) -> bool:
    return isinstance(source, str) and source.lower() in DATA_SETS


def _embedded(source: Source, preprocessing: Preprocessing, seed: int, *_: Any) -> Splits:
    return DATA_SETS[str(source).lower()](preprocessing, seed)


def _embedded_validation(source: Source, preprocessing: Preprocessing, seed: int, *_: Any) -> Labelled:
    splits = _embedded(source, preprocessing, seed)
    return Labelled(splits.validation, splits.class_names)


def _is_tfds(source: Source) -> bool:
    return isinstance(source, str) and source.startswith(names.TFDS_PREFIX)


def _prepare_tfds(source: Source) -> tuple[Path, str]:
    """Let TensorFlow Datasets download and prepare a data set, unless it has done so before.

    It writes TFRecord shards (https://www.tensorflow.org/datasets/external_tfrecord).

    Args:
        source: `"tfds:NAME"`; NAME may hold a configuration and a version, as in `imagenet_v2/matched-frequency`.

    Returns:
        The folder of the shards, and what a report calls the data set, such as `tfds-cars-1.0.0`, which is also in the
        name of a run's folder.

    Raises:
        DataError: If the package is not installed, or can't prepare a data set of that name.
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise DataError(
            f"{names.TFDS_PREFIX}NAME needs the package tensorflow-datasets. Received: {error}. "
            "Install it with: pip install 'keras-qat[tfds]'."
        ) from error
    name = str(source).removeprefix(names.TFDS_PREFIX)
    try:
        builder = tensorflow_datasets.builder(name)
        builder.download_and_prepare()
    except Exception as error:
        # It raises errors of many classes; each of them says what it lacks, such as archives to download by hand.
        reason = str(error).strip() or type(error).__name__
        raise DataError(
            f"TensorFlow Datasets can't prepare {name!r}: {reason}\nReceived: {source!r}. Give a name of its "
            "catalogue; for ImageNet, `keras-qat prepare-imagenet` needs only the official archives."
        ) from error
    return Path(builder.data_dir), str(source).replace("/", "-").replace(":", "-")


def _tfds(source: Source, preprocessing: Preprocessing, seed: int, skip_bad: bool, _: int | None) -> Splits:
    folder, name = _prepare_tfds(source)
    return load_records(folder, preprocessing, seed, skip_bad, name=name)


def _tfds_validation(source: Source, preprocessing: Preprocessing, _: int, skip_bad: bool, *__: Any) -> Labelled:
    folder, name = _prepare_tfds(source)
    return load_records_validation(folder, preprocessing, skip_bad, name=name)


# The labels of records are numbers, or synsets, which are ImageNet's: the model's number of classes decides nothing.
def _records(source: Source, preprocessing: Preprocessing, seed: int, skip_bad: bool, _: int | None) -> Splits:
    return load_records(source, preprocessing, seed, skip_bad)


def _records_validation(source: Source, preprocessing: Preprocessing, _: int, skip_bad: bool, *__: Any) -> Labelled:
    return load_records_validation(source, preprocessing, skip_bad)


def _is_folder(source: Source) -> bool:
    return is_folder(Path(source), DataError)


def _is_shards(source: Source) -> bool:
    return _is_folder(source) and has_shards(Path(source))


@dataclass(frozen=True)
class SourceKind:
    """One kind of data set.

    Args:
        accepts: whether a source is of this kind.
        splits: from source, preprocessing, seed, `skip_bad` and the model's number of classes to the three sets.
        validation: from the same arguments to the validation images; nothing else of the data set is needed.
    """

    accepts: Callable[[Source], bool]
    splits: Callable[[Source, Preprocessing, int, bool, int | None], Splits]
    validation: Callable[[Source, Preprocessing, int, bool, int | None], Labelled]


SOURCE_KINDS = (
    SourceKind(_is_embedded, _embedded, _embedded_validation),
    SourceKind(_is_tfds, _tfds, _tfds_validation),
    SourceKind(_is_shards, _records, _records_validation),
    SourceKind(_is_folder, folders.load_folder, folders.load_folder_validation),
)
"""The first kind that accepts a source reads it."""


def _kind(source: Source) -> SourceKind:
    for kind in SOURCE_KINDS:
        # Python would take the empty name for the current folder.
        if source and kind.accepts(source):
            return kind
    raise names.unknown_source(source)

"""The embedded data set: 1797 handwritten digits that ship with scikit-learn, so nothing is downloaded.

`tfds:NAME`: a data set of TensorFlow Datasets, prepared by it and read as TFRecord shards.

It is the extra `keras-qat[tfds]`; what it writes is described in https://www.tensorflow.org/datasets/external_tfrecord.

A data set by its name or by its folder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat.data.folders import is_photos, load_folder, load_folder_validation, load_photos, load_photos_validation
from keras_qat.data.image_set import ImageSet
from keras_qat.data.names import TFDS_PREFIX, unknown_source
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.records.labels import load_records, load_records_validation
from keras_qat.data.records.record_set import has_shards
from keras_qat.data.splits import Labelled, Splits
from keras_qat.errors import DataError
from keras_qat.files import is_folder

_INK_LEVELS = 16
_VALIDATION_SHARE = 0.2
_SELECTION_SHARE = 0.1


def load_digits_splits(preprocessing: Preprocessing, seed: int) -> Splits:
    """Load the digits: 70% to train, 10% to choose the best epoch, 20% to validate, stratified.

    The 8x8 images are kept as they are and resized to the network's input as they are read.

    Args:
        preprocessing: of the network; `preprocessing.for_size(32)` keeps it small.
        seed: of the split.

    Returns:
        1257 training, 180 selection and 360 validation images of ten classes.

    Example:
        >>> splits = load_digits_splits(Preprocessing("caffe", 32, 32), seed=0)
        >>> len(splits.train), len(splits.selection), len(splits.validation)
        (1257, 180, 360)
    """
    # Slow to import, and only this data set needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    gray = np.rint(digits.images * (255 / _INK_LEVELS)).astype(np.uint8)
    everything = ImageSet.from_arrays(
        "digits", np.repeat(gray[..., np.newaxis], 3, axis=-1), digits.target, preprocessing
    )
    indices = np.arange(len(everything))
    labels = everything.labels
    rest, validation = train_test_split(indices, test_size=_VALIDATION_SHARE, stratify=labels, random_state=seed)
    train, selection = train_test_split(
        rest, test_size=round(_SELECTION_SHARE * len(indices)), stratify=labels[rest], random_state=seed
    )
    return Splits(
        name="digits",
        train=everything.select(train, "digits/train"),
        selection=everything.select(selection, "digits/selection"),
        validation=everything.select(validation, "digits/validation"),
        num_classes=10,
        class_names=tuple(str(name) for name in digits.target_names),
    )


def is_tfds(source: str | Path) -> bool:
    """Whether `source` names a data set of TensorFlow Datasets.

    Example:
        >>> is_tfds("tfds:imagenet_v2"), is_tfds("digits")
        (True, False)
    """
    return isinstance(source, str) and source.startswith(TFDS_PREFIX)


def tfds_name(source: str) -> str:
    """What a report calls such a data set; `Settings.folder` has it, too.

    Example:
        >>> tfds_name("tfds:cars/1.0.0")
        'tfds-cars-1.0.0'
    """
    return source.replace("/", "-").replace(":", "-")


def prepare_tfds(source: str) -> Path:
    """Let TensorFlow Datasets download and prepare a data set, unless it has done so before.

    Args:
        source: `"tfds:NAME"`; NAME may hold a configuration and a version, as in `imagenet_v2/matched-frequency`.

    Returns:
        The folder of its shards.

    Raises:
        DataError: the package isn't installed, or can't prepare a data set of that name.
    """
    datasets = _package()
    name = source.removeprefix(TFDS_PREFIX)
    try:
        builder = datasets.builder(name)
        builder.download_and_prepare()
    except Exception as error:
        # It raises errors of many classes; each of them says what it lacks, such as archives to download by hand.
        reason = str(error).strip() or type(error).__name__
        raise DataError(
            f"TensorFlow Datasets can't prepare {name!r}: {reason}\nReceived: {source!r}. Give a name of its "
            "catalogue; for ImageNet, `keras-qat prepare-imagenet` needs only the official archives."
        ) from error
    return Path(builder.data_dir)


def _package() -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise DataError(
            f"{TFDS_PREFIX}NAME needs the package tensorflow-datasets. Received: {error}. "
            "Install it with: pip install 'keras-qat[tfds]'."
        ) from error
    return tensorflow_datasets


# The data sets that need no folder. Add yours here, and its name to `data_names.EMBEDDED`.
DATA_SETS: dict[str, Callable[[Preprocessing, int], Splits]] = {"digits": load_digits_splits}

Source = str | Path


@dataclass(frozen=True)
class SourceKind:
    """One way to give a data set.

    Args:
        accepts: whether a source is given in this way.
        splits: from source, preprocessing, seed, `skip_bad` and the model's number of classes to the three sets.
        validation: from the same to the validation images alone, with nothing else needed.
    """

    accepts: Callable[[Source], bool]
    splits: Callable[[Source, Preprocessing, int, bool, int | None], Splits]
    validation: Callable[[Source, Preprocessing, int, bool, int | None], Labelled]


def _embedded(source: Source, preprocessing: Preprocessing, seed: int, *_: Any) -> Splits:
    return DATA_SETS[str(source).lower()](preprocessing, seed)


def _embedded_validation(source: Source, preprocessing: Preprocessing, seed: int, *_: Any) -> Labelled:
    splits = _embedded(source, preprocessing, seed)
    return Labelled(splits.validation, splits.class_names)


def _folder_validation(
    source: Source, preprocessing: Preprocessing, _: int, skip_bad: bool, num_classes: int | None
) -> Labelled:
    return load_folder_validation(source, preprocessing, skip_bad, num_classes)


# Labels of records are numbers already, or names in order; those of synsets are ImageNet's.
def _records(source: Source, preprocessing: Preprocessing, seed: int, skip_bad: bool, _: int | None) -> Splits:
    return load_records(source, preprocessing, seed, skip_bad)


def _records_validation(source: Source, preprocessing: Preprocessing, _: int, skip_bad: bool, *__: Any) -> Labelled:
    return load_records_validation(source, preprocessing, skip_bad)


def _tfds(source: Source, preprocessing: Preprocessing, seed: int, skip_bad: bool, _: int | None) -> Splits:
    return load_records(prepare_tfds(str(source)), preprocessing, seed, skip_bad, name=tfds_name(str(source)))


def _tfds_validation(source: Source, preprocessing: Preprocessing, _: int, skip_bad: bool, *__: Any) -> Labelled:
    return load_records_validation(prepare_tfds(str(source)), preprocessing, skip_bad, name=tfds_name(str(source)))


def _is_folder(source: Source) -> bool:
    return is_folder(Path(source), DataError)


# The first that accepts a source reads it.
SOURCE_KINDS: tuple[SourceKind, ...] = (
    SourceKind(lambda source: isinstance(source, str) and source.lower() in DATA_SETS, _embedded, _embedded_validation),
    SourceKind(is_tfds, _tfds, _tfds_validation),
    SourceKind(lambda source: _is_folder(source) and has_shards(Path(source)), _records, _records_validation),
    SourceKind(is_photos, load_photos, load_photos_validation),
    SourceKind(_is_folder, load_folder, _folder_validation),
)


def load_data(
    source: Source,
    preprocessing: Preprocessing,
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
) -> Splits:
    """Load a data set and cut it into training, selection and validation images.

    Args:
        source: the name of an embedded data set (`"digits"`), a folder with `train/CLASS/` and `val/CLASS/`
            (`load_folder`), of photos to be cut, with or without class folders (`load_photos`), or with TFRecord shards
            (`load_records`), or `"tfds:NAME"` for a data set of TensorFlow Datasets. A folder that has the name of a
            data set is given as `./digits`.
        preprocessing: of the network that will read the images.
        seed: of the split.
        skip_bad: leave out the images that are found to be broken now, and log how many; give
            `ImageSet.batches` a `Skipped` for those that turn out so later.
        num_classes: how many classes the model tells apart, if that is known; it decides how class folders that are
            named by WordNet ids are numbered (`number_classes`). 0 where labels don't matter.

    Returns:
        The three sets.

    Raises:
        DataError: neither a known name nor a folder, or what is there can't be read as images.

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
    """Load the validation images alone, of a data set that needs to have nothing else.

    They are those of `load_data(…).validation`, with the same labels.

    Args:
        source: as for `load_data`; a folder may have `val/`, or shards to validate, only.
        preprocessing: of the network that will read the images.
        seed: of the split, where the data set has no validation images of its own: that of the run, or images that
            calibrated would judge.
        skip_bad: as for `load_data`.
        num_classes: likewise.

    Returns:
        The images, and the names of the classes.

    Raises:
        DataError: as from `load_data`.

    Example:
        >>> validation = load_validation("digits", Preprocessing("tf", 32, 32), seed=0)
        >>> len(validation.images), validation.class_names[:3]
        (360, ('0', '1', '2'))
    """
    return _kind(source).validation(source, preprocessing, seed, skip_bad, num_classes)


def _kind(source: Source) -> SourceKind:
    for kind in SOURCE_KINDS:
        # No name is no folder, though Python takes it for the current one.
        if source and kind.accepts(source):
            return kind
    raise unknown_source(source)

"""A data set by its name or by its folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_qat.data.digits import load_digits_splits
from keras_qat.data.folder import load_folder, load_folder_validation
from keras_qat.data.photos import is_photos, load_photos, load_photos_validation
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.records import has_shards, load_records, load_records_validation
from keras_qat.data.splits import Labelled, Splits
from keras_qat.data.tfds import is_tfds, prepare_tfds, tfds_name
from keras_qat.data_names import unknown_source
from keras_qat.errors import DataError
from keras_qat.file_system import is_folder

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

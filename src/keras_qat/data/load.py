"""A data set by its name, its path or a function: a table with a row for each kind of data.

Rows of images import TensorFlow, rows of arrays don't, so each imports what it needs when it is asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_qat.data import names, user_function
from keras_qat.data.arrays import files, parts, stream_arrays
from keras_qat.data.signature import Signature
from keras_qat.data.splits import Labelled, Splits
from keras_qat.errors import DataError
from keras_qat.text import shortened

if TYPE_CHECKING:
    from keras_qat.data.preprocessing import Preprocessing

_INK_LEVELS = 16
_VALIDATION_SHARE = 0.2
_SELECTION_SHARE = 0.1

Source = str | Path


@dataclass(frozen=True)
class Request:
    """What is to be loaded, and how: the arguments of `load_data`."""

    source: Source
    images: "Preprocessing | None"
    seed: int
    skip_bad: bool = False
    num_classes: int | None = None
    signature: Signature | None = None

    @property
    def preprocessing(self) -> "Preprocessing":
        """The preprocessing of images.

        Raises:
            DataError: If none is given.
        """
        if self.images is None:
            raise DataError(
                f"Images must be prepared as the model was trained. Received: {str(self.source)!r} without a "
                "preprocessing. Give one, such as Preprocessing('unit', 224, 224), or arrays that are prepared already."
            )
        return self.images

    @property
    def path(self) -> Path:
        """The file or folder."""
        return Path(self.source)

    @property
    def name(self) -> str:
        """What a report calls a file or folder: its name without suffix."""
        path = self.path.resolve()
        return path.stem if path.suffix.lower() in names.ARRAY_SUFFIXES | names.CSV_SUFFIXES else path.name


def load_data(
    source: Source,
    preprocessing: "Preprocessing | None",
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
    signature: Signature | None = None,
) -> Splits:
    """Load a data set and cut it into training, selection and validation images, or samples.

    Args:
        source: where the data are:
            - a folder of images, already cut into `train/CLASS/` and `val/CLASS/` or not, with or without class
              folders; with `images/` and `masks/`, paired by name; or of TFRecord shards (`load_records`);
            - a `.csv` file of paths of images and their labels;
            - an `.npy`, `.npz` or HDF5 file, or a folder of the first two, whose names say what is what: `x` and `y`,
              `x_train` and so on, or the names of the model's inputs and outputs;
            - a folder that `tf.data.Dataset.save` wrote;
            - `"module:function"` or `"file.py:function"`, a function of yours that returns arrays or a stream of them;
            - the name of an embedded data set (`"digits"`), or `"tfds:NAME"` for one of TensorFlow Datasets. A folder
              that has the name of a data set is given as `./digits`.
        preprocessing: the preprocessing of the network that will read the images; `None` for arrays, which are fed as
            they are.
        seed: the seed of the cut.
        skip_bad: leave out the images that are found to be broken now, and log how many there are. Give
            `ImageSet.batches` a `Skipped` for those that are found later.
        num_classes: the number of classes of the model, if it is known. It decides how class folders named by WordNet
            ids are numbered: as ImageNet's 1000 classes, or from 0 on. 0 if labels do not matter.
        signature: what the model reads and answers, if it is known. Arrays are checked against it and cast, and labels
            are read as classes or numbers by the shapes of its outputs.

    Returns:
        The three sets.

    Raises:
        DataError: If `source` is neither a known name nor data of a known kind, or its data can't be read or don't fit
            the model.

    Example:
        >>> from keras_qat.data import Preprocessing
        >>> load_data("digits", Preprocessing("tf", 32, 32), seed=0).num_classes
        10
    """
    request = Request(source, preprocessing, seed, skip_bad, num_classes, signature)
    return SOURCE_KINDS[names.kind_of(source)].splits(request)


def load_validation(
    source: Source,
    preprocessing: "Preprocessing | None",
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
    signature: Signature | None = None,
) -> Labelled:
    """Load the validation images or samples alone, of a data set that need not have any others.

    They are those of `load_data(…).validation`, with the same labels.

    Args:
        source: as for `load_data`; a folder may have only `val/`, or only validation shards.
        preprocessing: the preprocessing of the network that will read the images.
        seed: the seed of the cut. Give that of the run if the data set is cut here: with another seed, images that the
            run calibrated with would judge it.
        skip_bad: as for `load_data`.
        num_classes: as for `load_data`.
        signature: as for `load_data`.

    Returns:
        The images, and the names of the classes.

    Raises:
        DataError: As for `load_data`.

    Example:
        >>> from keras_qat.data import Preprocessing
        >>> validation = load_validation("digits", Preprocessing("tf", 32, 32), seed=0)
        >>> len(validation.images), validation.class_names[:3]
        (360, ('0', '1', '2'))
    """
    request = Request(source, preprocessing, seed, skip_bad, num_classes, signature)
    return SOURCE_KINDS[names.kind_of(source)].validation(request)


def _load_digits(preprocessing: "Preprocessing", seed: int) -> Splits:
    """Load scikit-learn's 1797 handwritten digits, which are installed with it: nothing is downloaded.

    70% train, 10% choose the best epoch, 20% validate, stratified: 1257, 180 and 360 images of ten classes. The 8x8
    images are kept as they are and resized to the network's input as they are read.
    """
    # Slow to import, and only this data set needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from keras_qat.data.image_set import ImageSet

    digits = load_digits()
    gray = np.rint(digits.images * (255 / _INK_LEVELS)).astype(np.uint8)
    images = ImageSet.from_arrays("digits", np.repeat(gray[..., np.newaxis], 3, axis=-1), digits.target, preprocessing)
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


DATA_SETS: dict[str, Callable[["Preprocessing", int], Splits]] = {"digits": _load_digits}
"""The data sets that need no folder. Add yours here, and its name to `names.EMBEDDED`."""


def _embedded(request: Request) -> Splits:
    return DATA_SETS[str(request.source).lower()](request.preprocessing, request.seed)


def _embedded_validation(request: Request) -> Labelled:
    splits = _embedded(request)
    return Labelled(splits.validation, splits.class_names)


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


def _tfds(request: Request) -> Splits:
    from keras_qat.data.records.shard_folder import load_records

    folder, name = _prepare_tfds(request.source)
    return load_records(folder, request.preprocessing, request.seed, request.skip_bad, name=name)


def _tfds_validation(request: Request) -> Labelled:
    from keras_qat.data.records.shard_folder import load_records_validation

    folder, name = _prepare_tfds(request.source)
    return load_records_validation(folder, request.preprocessing, request.skip_bad, name=name)


# The labels of records are numbers, or synsets, which are ImageNet's: the model's number of classes decides nothing.
def _records(request: Request) -> Splits:
    from keras_qat.data.records.shard_folder import load_records

    return load_records(request.path, request.preprocessing, request.seed, request.skip_bad)


def _records_validation(request: Request) -> Labelled:
    from keras_qat.data.records.shard_folder import load_records_validation

    return load_records_validation(request.path, request.preprocessing, request.skip_bad)


def _images(request: Request) -> Splits:
    from keras_qat.data.folders import load_folder

    return load_folder(request.path, request.preprocessing, request.seed, request.skip_bad, request.num_classes)


def _images_validation(request: Request) -> Labelled:
    from keras_qat.data.folders import load_folder_validation

    return load_folder_validation(
        request.path, request.preprocessing, request.seed, request.skip_bad, request.num_classes
    )


def _masks(request: Request) -> Splits:
    from keras_qat.data.mask_folder import load_masks

    return load_masks(request.path, request.preprocessing, request.seed, request.skip_bad, request.signature)


def _masks_validation(request: Request) -> Labelled:
    from keras_qat.data.mask_folder import load_masks_validation

    return load_masks_validation(request.path, request.preprocessing, request.seed, request.skip_bad, request.signature)


def _csv(request: Request) -> Splits:
    from keras_qat.data.csv_file import load_csv

    return load_csv(
        request.path, request.preprocessing, request.seed, request.skip_bad, request.num_classes, request.signature
    )


def _csv_validation(request: Request) -> Labelled:
    from keras_qat.data.csv_file import load_csv_validation

    return load_csv_validation(
        request.path, request.preprocessing, request.seed, request.skip_bad, request.num_classes, request.signature
    )


def _open_file(request: Request) -> files.Opened:
    return files.OPENERS[request.path.suffix.lower()](request.path, request.signature)


def _open_folder(request: Request) -> files.Opened:
    return files.open_folder(request.path, request.signature)


def _open_function(request: Request) -> files.Opened:
    source = str(request.source)
    value = user_function.call_function(source)
    # A generator runs, and imports, as it is read.
    with user_function.importable(user_function.place_of(source)):
        return stream_arrays.arrays_of(value, request.signature, source)


def _open_dataset(request: Request) -> files.Opened:
    """The batches or samples that `tf.data.Dataset.save` wrote, read into memory."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise DataError(
            f"A saved tf.data dataset needs TensorFlow to be read. Received: {str(request.source)!r}, without "
            "TensorFlow. Install it with: pip install tensorflow-cpu, or save the arrays with `numpy.savez`."
        ) from error
    try:
        # In the order of the shards. By default it depends on the number of processors.
        dataset = tf.data.Dataset.load(str(request.source), reader_func=_one_after_the_other)
    except Exception as error:  # TensorFlow has a class of errors for each code.
        raise DataError(
            f"TensorFlow can't read the saved dataset: {shortened(error)}. Received: {str(request.source)!r}. Save it "
            "anew with `dataset.save(path)`."
        ) from error
    return stream_arrays.arrays_of(dataset, request.signature, str(request.source))


def _one_after_the_other(shards: Any) -> Any:
    return shards.flat_map(lambda shard: shard)


def _function_name(request: Request) -> str:
    """What a report and a run's folder call the data of a function: `my_data-load`."""
    place = user_function.place_of(str(request.source)).removesuffix(".py")
    return f"{Path(place).name}-{str(request.source).rpartition(':')[2]}"


@dataclass(frozen=True)
class SourceKind:
    """One kind of data set.

    Args:
        splits: from a request to the three sets.
        validation: from a request to the validation images; nothing else of the data set is needed.
    """

    splits: Callable[[Request], Splits]
    validation: Callable[[Request], Labelled]


def _of_arrays(
    opened: Callable[[Request], files.Opened], name: Callable[[Request], str] = lambda request: request.name
) -> SourceKind:
    """The kind of data whose arrays a function opens."""

    def splits(request: Request) -> Splits:
        return parts.splits_of(name(request), opened(request), request.signature, request.seed, request.num_classes)

    def validation(request: Request) -> Labelled:
        return parts.validation_of(name(request), opened(request), request.signature, request.seed, request.num_classes)

    return SourceKind(splits, validation)


SOURCE_KINDS: Mapping[names.Kind, SourceKind] = {
    "embedded": SourceKind(_embedded, _embedded_validation),
    "tfds": SourceKind(_tfds, _tfds_validation),
    "shards": SourceKind(_records, _records_validation),
    "images": SourceKind(_images, _images_validation),
    "masks": SourceKind(_masks, _masks_validation),
    "csv": SourceKind(_csv, _csv_validation),
    "array file": _of_arrays(_open_file),
    "arrays": _of_arrays(_open_folder),
    "dataset": _of_arrays(_open_dataset),
    "function": _of_arrays(_open_function, _function_name),
}
"""How each kind of data is loaded; `names.kind_of` tells the kind."""

"""`tfds:NAME`: a data set of TensorFlow Datasets, prepared by it and read as TFRecord shards.

It is the extra `keras-qat[tfds]`; what it writes is described in https://www.tensorflow.org/datasets/external_tfrecord.
"""

from pathlib import Path
from typing import Any

from keras_qat.data_names import TFDS_PREFIX
from keras_qat.errors import DataError


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

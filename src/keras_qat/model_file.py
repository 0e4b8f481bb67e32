"""A `.keras` file that somebody named."""

from pathlib import Path
from typing import Any

from keras_qat.errors import StorageError
from keras_qat.paths import require_model_file


def load_model_file(path: Path) -> Any:
    """Load a Keras model, quantized or not.

    Args:
        path: of a .keras file.

    Raises:
        StorageError: there is no such file, or it can't be read as a model.

    Example:
        >>> load_model_file(Path("nowhere.keras"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no such model file. ...
    """
    require_model_file(path)
    import keras

    import keras_qat.layers  # noqa: F401  (Keras knows quantized layers by that)

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # zip, JSON, HDF5 and unknown layers each fail in their own way.
        raise StorageError(
            f"The file can't be read as a Keras model: {' '.join(str(error).split())}. Received: {str(path)!r}. "
            "Save it again with `model.save`; a model with layers of your own must be read from Python."
        ) from error

"""Keras model → `.keras`: structure, ranges and numbers, bit for bit."""

from pathlib import Path
from typing import Any

from keras_qat.storage import atomic_path


def export_keras(model: Any, path: str | Path) -> Path:
    """Save a model in Keras's own format, whole or not at all.

    Args:
        model: any `keras.Model`. To load a quantized one, `import keras_qat` first.
        path: where to write, ending in `.keras`.

    Returns:
        The path.

    Raises:
        StorageError: the file can't be written.
    """
    path = Path(path)
    with atomic_path(path) as temporary:
        model.save(temporary)
    return path

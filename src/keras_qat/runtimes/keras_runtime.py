"""The Keras model itself, as its users run it: `predict_on_batch`."""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_qat.layers  # noqa: F401  (Keras knows quantized layers by that)
from keras_qat.errors import StorageError
from keras_qat.runtimes.runtime import Runtime, TensorSpec


class KerasRuntime(Runtime):
    """Runs a `keras.Model` on the backend that Keras was started with.

    Args:
        model: any Functional or Sequential model.
    """

    def __init__(self, model: Any) -> None:
        # Sequential has one output and no name for it.
        names = [model.layers[-1].name] if isinstance(model, keras.Sequential) else model.output_names
        super().__init__(
            f"Keras {keras.version()} on {keras.backend.backend()}",
            f"{os.cpu_count()} threads",
            tuple(_spec(tensor.name, tensor) for tensor in model.inputs),
            tuple(_spec(*pair) for pair in zip(names, model.outputs, strict=True)),
        )
        self._model = model

    @classmethod
    def load(cls, path: Path) -> "KerasRuntime":
        """Open a `.keras` file.

        Raises:
            StorageError: it holds no model that Keras can load.
        """
        try:
            return cls(keras.models.load_model(path, compile=False))
        except Exception as error:
            # Keras's loader raises whatever the part that it was reading raises.
            raise StorageError(
                f"Keras can't load the model. Received: {str(path)!r}: {error}. Save it again."
            ) from error

    @property
    def model(self) -> Any:
        """The model that it runs."""
        return self._model

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        # Several inputs go in as the model was given them: a list, or a dictionary of names.
        batch = inputs[0] if len(inputs) == 1 else keras.tree.pack_sequence_as(self._model.input, list(inputs))
        return tuple(np.asarray(output) for output in keras.tree.flatten(self._model.predict_on_batch(batch)))


def _spec(name: str, tensor: Any) -> TensorSpec:
    return TensorSpec(name, tuple(tensor.shape), np.dtype(tensor.dtype))

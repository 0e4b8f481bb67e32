"""The Keras model itself, as its users run it: `predict_on_batch`.

TensorFlow on a SavedModel, as TensorFlow Serving runs it: by its signature.

Keras's `model.export` and our `export_saved_model` both write the signature `serving_default`
(https://www.tensorflow.org/guide/saved_model#specifying_signatures_during_export).
"""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_qat.layers  # noqa: F401  (Keras knows quantized layers by that)
from keras_qat.errors import StorageError, UnsupportedModelError
from keras_qat.runtimes.runtime import Runtime, TensorSpec, import_optional


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


_SIGNATURE = "serving_default"
_GRAPHS = ("saved_model.pb", "saved_model.pbtxt")


def is_saved_model(path: Path) -> bool:
    """Whether a folder holds a SavedModel's graph.

    Example:
        >>> is_saved_model(Path("nowhere"))
        False
    """
    return any((path / name).is_file() for name in _GRAPHS)


class SavedModelRuntime(Runtime):
    """Runs the serving signature of a SavedModel; several inputs and outputs come in the order of their names.

    Args:
        path: the folder.

    Raises:
        StorageError: the folder holds no SavedModel, a corrupt one, or one without a serving signature.
        UnsupportedModelError: an input or output has no NumPy type, or not even a number of dimensions.
        UserError: TensorFlow isn't installed.
    """

    def __init__(self, path: str | Path) -> None:
        tf = import_optional("tensorflow", title="TensorFlow", install="'keras-qat[cpu]'")
        path = Path(path)
        # The signature alone doesn't keep the model's variables.
        self._model = _load(tf, path)
        self._signature = _signature(self._model, path)
        _, inputs = self._signature.structured_input_signature
        super().__init__(
            f"TensorFlow {tf.__version__}",
            "GPU" if tf.config.list_physical_devices("GPU") else f"CPU, {os.cpu_count()} threads",
            tuple(_signature_spec(name, inputs[name], path) for name in sorted(inputs)),
            tuple(
                _signature_spec(name, spec, path) for name, spec in sorted(self._signature.structured_outputs.items())
            ),
        )

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        # A signature takes tensors only, and converts arrays itself.
        outputs = self._signature(**{spec.name: array for spec, array in zip(self.inputs, inputs, strict=True)})
        return tuple(np.array(outputs[spec.name]) for spec in self.outputs)

    def _close(self) -> None:
        del self._signature, self._model


def _load(tf: Any, path: Path) -> Any:
    if not is_saved_model(path):
        raise StorageError(
            f"The folder is no SavedModel: it has no saved_model.pb. Received: {str(path)!r}. Give the folder that "
            "`export_saved_model` or Keras's `model.export` wrote."
        )
    try:
        return tf.saved_model.load(str(path))
    except Exception as error:
        # The protobuf reader, the checkpoint reader and the graph importer each raise their own.
        raise StorageError(
            f"TensorFlow can't load the SavedModel. Received: {str(path)!r}: {' '.join(str(error).split())}. "
            "Export it again."
        ) from error


def _signature(model: Any, path: Path) -> Any:
    signatures = getattr(model, "signatures", {})
    if _SIGNATURE in signatures:
        return signatures[_SIGNATURE]
    raise StorageError(
        f"The SavedModel can't be served: it has no signature {_SIGNATURE!r}. Received: {str(path)!r} with "
        f"{', '.join(map(repr, signatures)) or 'no signature'}. Write it with `export_saved_model` or Keras's "
        "`model.export`."
    )


def _signature_spec(name: str, spec: Any, path: Path) -> TensorSpec:
    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    if spec.shape.rank is None or dtype == np.dtype(object):
        raise UnsupportedModelError(
            f"{name!r} must be an array of numbers with a known number of dimensions. Received: {spec.dtype.name} "
            f"{spec.shape} in {str(path)!r}. Export a model from numbers to numbers."
        )
    return TensorSpec(name, tuple(spec.shape), dtype)

"""Keras models, run by `predict_on_batch`, and SavedModels, run by their signature as TensorFlow Serving does.

Both Keras's `model.export` and `keras_qat.export_saved_model` write the signature `serving_default`
(https://www.tensorflow.org/guide/saved_model#specifying_signatures_during_export).
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional

from keras_qat.errors import StorageError, UnsupportedModelError
from keras_qat.files import load_keras_file, require_model_file, require_trusted
from keras_qat.runtimes.runtime import Runtime, TensorSpec, import_engine
from keras_qat.targets import find_engine
from keras_qat.text import shortened

_SIGNATURE = "serving_default"


class KerasRuntime(Runtime):
    """Runs the graph of a `keras.Model` on Keras's backend.

    Args:
        model: any Functional or Sequential model, or a subclass of one.
    """

    def __init__(self, model: Any) -> None:
        # A Sequential model has one output, which has no name.
        names = [model.layers[-1].name] if isinstance(model, keras.Sequential) else model.output_names
        super().__init__(
            f"Keras {keras.version()} on {keras.backend.backend()}",
            f"{os.cpu_count()} threads",
            tuple(_spec(tensor.name, tensor) for tensor in model.inputs),
            tuple(_spec(*pair) for pair in zip(names, model.outputs, strict=True)),
        )
        self._model = model
        self._run_model = _graph_of(model)

    @classmethod
    def load(cls, path: Path) -> "KerasRuntime":
        """Open a `.keras` file.

        Raises:
            StorageError: If Keras can't load a model from the file.
        """
        require_model_file(path)
        return cls(load_keras_file(path))

    @property
    def model(self) -> Any:
        """The model that it runs."""
        return self._model

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        # Several inputs go in as the model was given them: a list, or a dictionary of names.
        batch = inputs[0] if len(inputs) == 1 else keras.tree.pack_sequence_as(self._model.input, list(inputs))
        return tuple(np.asarray(output) for output in keras.tree.flatten(self._run_model.predict_on_batch(batch)))


def _graph_of(model: Any) -> Any:
    """The model without what its class does in `predict` before and behind its graph, which is no part of a file.

    A task of KerasHub prepares images there, and a detector decodes boxes. A class with a `call` of its own is what
    that computes, and is left as it is.
    """
    if type(model) in {Functional, keras.Sequential} or type(model).call is not Functional.call:
        return model
    return keras.Model(model.input, model.output)


class SavedModelRuntime(Runtime):
    """Runs the serving signature of a SavedModel. Inputs and outputs are in the order of their names.

    Names that TensorFlow gave to outputs in a list, `output_0` and so on, are in the order of their numbers.

    Args:
        path: the folder.
        trust: whether the code in the SavedModel may run, even if this tool did not write it.

    Raises:
        StorageError: If the folder holds no SavedModel, a corrupt one, or one without a serving signature.
        UnsupportedModelError: If an input or output has no NumPy dtype, or an unknown number of dimensions.
        UserError: If the SavedModel is not trusted, or TensorFlow is not installed.
    """

    def __init__(self, path: str | Path, *, trust: bool = False) -> None:
        path = Path(path)
        require_trusted(path, trust=trust)
        tf = import_engine(find_engine("tensorflow"))
        # The signature alone does not keep the model's variables alive.
        self._model = _load(tf, path)
        self._signature = _signature(self._model, path)
        _, inputs = self._signature.structured_input_signature
        super().__init__(
            f"TensorFlow {tf.__version__}",
            "GPU" if tf.config.list_physical_devices("GPU") else f"CPU, {os.cpu_count()} threads",
            tuple(_signature_spec(name, inputs[name], path) for name in sorted(inputs)),
            tuple(
                _signature_spec(name, self._signature.structured_outputs[name], path)
                for name in _in_order(self._signature.structured_outputs)
            ),
        )

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        # A signature takes tensors only, and converts arrays itself.
        outputs = self._signature(**{spec.name: array for spec, array in zip(self.inputs, inputs, strict=True)})
        return tuple(np.array(outputs[spec.name]) for spec in self.outputs)

    def _close(self) -> None:
        del self._signature, self._model


_NUMBERED = re.compile(r"output_(\d+)")


def _in_order(names: Iterable[str]) -> list[str]:
    """Names of outputs in order: by their numbers if TensorFlow numbered them, as strings otherwise.

    Example:
        >>> _in_order(["output_10", "output_9"]), _in_order(["p4", "p10"])
        (['output_9', 'output_10'], ['p10', 'p4'])
    """
    found = {name: _NUMBERED.fullmatch(name) for name in sorted(names)}
    numbers = {name: int(match[1]) for name, match in found.items() if match is not None}
    return sorted(numbers, key=lambda name: numbers[name]) if len(numbers) == len(found) else list(found)


def _spec(name: str, tensor: Any) -> TensorSpec:
    return TensorSpec(name, tuple(tensor.shape), np.dtype(tensor.dtype))


def _load(tf: Any, path: Path) -> Any:
    try:
        return tf.saved_model.load(str(path))
    except Exception as error:
        # The protobuf reader, the checkpoint reader and the graph importer each raise their own exceptions.
        raise StorageError(
            f"TensorFlow can't load the SavedModel. Received: {str(path)!r}: {shortened(error)}. Export it again."
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

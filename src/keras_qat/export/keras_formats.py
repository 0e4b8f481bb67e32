"""Write a Keras model as a `.keras` file, or as a TensorFlow SavedModel whose quantization TensorFlow's tools read.

A `.keras` file keeps structure, ranges and numbers bit for bit. For a SavedModel, FakeQuantize layers and quantized
kernels are replaced by TensorFlow's QuantizeAndDequantize with a given range, which `tf2onnx` turns into Q/DQ pairs:

    python -m tf2onnx.convert --saved-model DIR --opset 13 --output model.onnx

That operation is symmetric about zero (`narrow_range`), so a signed tensor saturates at -127 steps, not at -128.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_qat import files, graph, layers, transform
from keras_qat.errors import StorageError, UserError
from keras_qat.text import first_few
from keras_qat.types import QuantSpec


def export_keras(model: Any, path: str | Path) -> Path:
    """Save a model in Keras's own format. An existing file is replaced only after the new one is complete.

    Args:
        model: any `keras.Model`. Before a quantized one is loaded, `keras_qat` must be imported.
        path: the file to write, with a name that ends in `.keras`.

    Returns:
        The path.

    Raises:
        StorageError: If the file can't be written.
    """
    path = Path(path)
    with files.atomic_path(path) as temporary:
        model.save(temporary)
    return path


def export_saved_model(model: Any, path: str | Path) -> Path:
    """Write a model, float or quantized, as a SavedModel with a dynamic batch.

    Its one signature is `serving_default`; a loaded SavedModel has the same function as its method `serve`.

    Args:
        model: a Functional or Sequential `keras.Model`. It is not changed.
        path: the folder to write.

    Returns:
        The path.

    Raises:
        UserError: If Keras runs on another backend than TensorFlow.
        StorageError: If the folder can't be written, or holds something else than a SavedModel.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"A SavedModel is TensorFlow's. Received: the Keras backend {keras.backend.backend()!r}. "
            "Set KERAS_BACKEND=tensorflow, or export ONNX."
        )
    path = Path(path)
    require_saved_model_place(path)
    lowered = transform.rebuild(graph.trace(model), _lower, lambda _, tensor: tensor)
    servable = _Servable(lowered)
    # TensorFlow's own function takes a third of the time of Keras's `model.export` for the same file.
    with files.atomic_path(path) as temporary:
        tf.saved_model.save(servable, str(temporary), signatures=servable.serve)
    files.remember_written(path)
    return path


def require_saved_model_place(path: Path) -> None:
    """Refuse a path where something else is than a SavedModel, which would be replaced with all that it holds.

    Args:
        path: the folder that will be written.

    Raises:
        StorageError: If a file is there, or a folder that holds other files than a SavedModel has.

    Example:
        >>> require_saved_model_place(Path("/"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: Something else is there, which a SavedModel would replace: ...
    """
    if files.is_folder(path):
        names = {item.name for item in path.iterdir() if not files.is_clutter(item.name)}
        others = sorted(names - _OF_A_SAVED_MODEL or (names if "saved_model.pb" not in names else ()))
        if not others:
            return
    elif files.is_there(path):
        others = [path.name]
    else:
        return
    raise StorageError(
        f"Something else is there, which a SavedModel would replace: {first_few(others)}. Received: {str(path)!r}. "
        "Name another folder."
    )


_OF_A_SAVED_MODEL = frozenset(
    ("saved_model.pb", "fingerprint.pb", "keras_metadata.pb", "variables", "assets", "assets.extra")
)
"""What the folder of a SavedModel holds (https://www.tensorflow.org/guide/saved_model)."""


class _Servable(tf.Module):  # type: ignore[misc]
    """The variables of a model and its forward pass, and nothing else of Keras."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model_variables = [variable.value for variable in model.variables]
        inputs = keras.tree.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype, t.name), model.input)
        self.serve = tf.function(lambda x: model(x, training=False), input_signature=[inputs])


def _lower(name: str, layer: Any) -> Any:
    """The layer that computes the same with TensorFlow's quantization operation."""
    if isinstance(layer, layers.FakeQuantize):
        return _LoweredFakeQuantize.from_config({**layer.get_config(), "name": name})
    if isinstance(layer, layers.WeightQuantized):
        lowered_type = type(f"Lowered{type(layer).__name__}", (_LoweredKernel, type(layer)), {})
        return lowered_type.from_config({**layer.get_config(), "name": name})  # type: ignore[attr-defined]
    return transform.copy_layer(name, layer)


def _quantize_and_dequantize(x: Any, amax: Any, spec: QuantSpec, axis: int) -> Any:
    """Quantize with one range (`axis` -1) or a range per index of `axis`.

    The V3 operation is used since V4's CPU kernel (TensorFlow 2.21) refuses a range per channel.
    """
    amax = tf.maximum(amax, layers.SMALLEST_AMAX)
    return tf.raw_ops.QuantizeAndDequantizeV3(
        input=x,
        input_min=-amax if spec.signed else tf.zeros_like(amax),
        input_max=amax,
        num_bits=spec.bits,
        signed_input=spec.signed,
        range_given=True,
        narrow_range=spec.signed,
        axis=axis,
    )


class _LoweredFakeQuantize(layers.FakeQuantize):
    def call(self, inputs: Any, training: bool | None = None) -> Any:  # noqa: ARG002
        return _quantize_and_dequantize(inputs, self.amax, self.spec, axis=-1)


class _LoweredKernel(layers.WeightQuantized):
    def quantized_kernel(self, kernel: Any) -> Any:
        """Quantize per channel along the last axis, into which those of a depthwise kernel are joined."""
        reduced = self.kernel_reduce_axes
        order = (*reduced, *(axis for axis in range(len(kernel.shape)) if axis not in reduced))
        amax = tf.reshape(layers.channel_amax(kernel, reduced), (-1,))
        last = tf.transpose(kernel, order)
        flat = tf.reshape(last, (*last.shape[: len(reduced)], amax.shape[0]))
        quantized = _quantize_and_dequantize(flat, amax, self.weight_spec, axis=len(reduced))
        return tf.transpose(tf.reshape(quantized, last.shape), np.argsort(order))

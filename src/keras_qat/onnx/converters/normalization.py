"""Normalization layers, by stored statistics and by those of each input, and layers that are affine per channel.

The fold pass merges a BatchNormalization, and the Mul and Add of y = a · x + b, into the convolution before it.
"""

from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.applications.convnext import LayerScale
from keras.src.ops import nn

from keras_qat.graph import TensorRef
from keras_qat.onnx.emission import Emission, Formula, Step, float_array, register_converter

_OPSET_OF_LAYER_NORMALIZATION = 17


@register_converter(keras.layers.BatchNormalization)
def convert_batch_norm(emission: Emission, step: Step) -> ir.Value:
    """BatchNormalization with the moving statistics; a Mul and an Add where it isn't over the file's channels."""
    layer = step.layer
    gamma, beta = (
        (float_array(layer.gamma) if layer.scale else None),
        (float_array(layer.beta) if layer.center else None),
    )
    return _batch_norm(emission, step, layer.moving_mean, layer.moving_variance, gamma, beta)


@register_converter(nn.BatchNorm)
def convert_batch_norm_operation(emission: Emission, step: Step) -> ir.Value:
    """The same, with the constants of the call."""
    given = step.arguments
    if any(isinstance(given.get(name), TensorRef) for name in ("mean", "variance", "offset", "scale")):
        step.refuse("statistics that the model computes", "Write the normalization out with `keras.ops.mean`.")
    gamma, beta = (None if given.get(name) is None else float_array(given[name]) for name in ("scale", "offset"))
    return _batch_norm(emission, step, given["mean"], given["variance"], gamma, beta)


def _batch_norm(
    emission: Emission, step: Step, mean: Any, variance: Any, gamma: np.ndarray | None, beta: np.ndarray | None
) -> ir.Value:
    axis, epsilon, rank = step.layer.axis, float(step.layer.epsilon), len(step.output_shape)
    mean, variance = float_array(mean), float_array(variance)
    gamma = np.ones_like(mean) if gamma is None else gamma
    beta = np.zeros_like(mean) if beta is None else beta
    if emission.layout.axis(axis, rank) == 1:
        names = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
        constants = [emission.constant(f"{step.name}/{name}", array) for name, array in names.items()]
        return emission.op(
            "BatchNormalization", [step.inputs[0], *constants], step.name, step.output_shape, epsilon=epsilon
        )
    a = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    return _affine(emission, step, *(_along(array, axis, rank) for array in (a, beta - mean * a)))


def _along(array: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """One number for each index of a Keras axis, in a shape that broadcasts."""
    return array.reshape([-1 if a == axis % rank else 1 for a in range(rank)])


@register_converter(keras.layers.LayerNormalization)
def convert_layer_norm(emission: Emission, step: Step) -> ir.Value:
    """LayerNormalization over the last Keras axes, or its formula."""
    layer = step.layer
    gamma, beta = (None if weight is None else float_array(weight) for weight in (layer.gamma, layer.beta))
    return _layer_norm(emission, step, gamma, beta, layer.epsilon)


@register_converter(nn.LayerNorm)
def convert_layer_norm_operation(emission: Emission, step: Step) -> ir.Value:
    """The same, with the constants of the call."""
    given = step.arguments
    if any(isinstance(given.get(name), TensorRef) for name in ("gamma", "beta")):
        step.refuse("a scale or offset that the model computes", "Multiply and add them behind the normalization.")
    gamma, beta = (None if given.get(name) is None else float_array(given[name]) for name in ("gamma", "beta"))
    return _layer_norm(emission, step, gamma, beta, step.layer.epsilon)


def _layer_norm(
    emission: Emission, step: Step, gamma: np.ndarray | None, beta: np.ndarray | None, epsilon: float | None
) -> ir.Value:
    """The operator where the axes are the last ones, which is faster, in Keras's layout; else its formula."""
    shape, rank, layer = step.output_shape, len(step.output_shape), step.layer
    epsilon = keras.backend.epsilon() if epsilon is None else float(epsilon)
    axes = sorted(axis % rank for axis in ((layer.axis,) if isinstance(layer.axis, int) else layer.axis))
    normalized = [shape[axis] for axis in axes]
    last = axes == list(range(rank - len(axes), rank)) and None not in normalized
    if last and not layer.rms_scaling and emission.opset >= _OPSET_OF_LAYER_NORMALIZATION:
        sizes = [size or 0 for size in normalized]
        arrays = (np.ones(sizes) if gamma is None else gamma, np.zeros(sizes) if beta is None else beta)
        constants = [
            emission.constant(f"{step.name}/{name}", array.reshape(sizes), np.float32)
            for name, array in zip(("gamma", "beta"), arrays, strict=True)
        ]
        x = emission.to_keras_layout(step.inputs[0], shape, step.name)
        value = emission.op("LayerNormalization", [x, *constants], step.name, axis=axes[0], epsilon=epsilon)
        return emission.to_file_layout(value, shape, step.name)
    spread = [size or -1 if axis in axes else 1 for axis, size in enumerate(shape)]
    scale, offset = (
        None if array is None else emission.layout.full(np.reshape(array, spread), rank) for array in (gamma, beta)
    )
    f, x = Formula(emission, f"{step.name}/normalize", None), step.inputs[0]
    in_file = tuple(emission.layout.axis(axis, rank) for axis in axes)
    off = f("Sub", x, _mean(f, x, in_file))
    sigma = f("Sqrt", f("Add", _mean(f, f("Mul", off, off), in_file), epsilon))
    return _scaled(emission, step, f("Div", x if layer.rms_scaling else off, sigma), scale, offset)


def _mean(f: Formula, x: ir.Value, axes: tuple[int, ...]) -> ir.Value:
    """The mean over axes in the file's layout, kept with size 1."""
    return f.emission.reduce("ReduceMean", x, axes, f"{f.name}/mean", None, keepdims=True)


def _scaled(
    emission: Emission, step: Step, value: ir.Value, scale: np.ndarray | None, offset: np.ndarray | None
) -> ir.Value:
    """A normalized value times the learned scale, plus the learned offset, as far as there are any."""
    for op_type, array in (("Mul", scale), ("Add", offset)):
        if array is not None:
            constant = emission.constant(f"{step.name}/{op_type.lower()}", array, np.float32)
            value = emission.op(op_type, [value, constant], step.name, step.output_shape)
    return value


@register_converter(keras.layers.GroupNormalization)
def convert_group_norm(emission: Emission, step: Step) -> ir.Value:
    """InstanceNormalization of the groups, each as one long channel, then the scale and offset of every channel."""
    layer, shape, rank = step.layer, step.output_shape, len(step.output_shape)
    at, perm = emission.layout.axis(layer.axis, rank), None
    x = step.inputs[0]
    if at != 1:
        perm = [0, at, *(axis for axis in range(1, rank) if axis != at)]
        x = emission.op("Transpose", [x], f"{step.name}/channels", perm=perm)
    groups = int(layer.groups)
    target = emission.constant(f"{step.name}/groups", [0, groups, -1], np.int64)
    grouped = emission.op("Reshape", [x, target], f"{step.name}/group")
    ones, zeros = (
        emission.constant(f"{step.name}/{name}", np.full(groups, n, np.float32))
        for name, n in (("ones", 1), ("zeros", 0))
    )
    value = emission.op(
        "InstanceNormalization", [grouped, ones, zeros], f"{step.name}/normalize", epsilon=float(layer.epsilon)
    )
    value = emission.op(
        "Reshape", [value, emission.op("Shape", [x], f"{step.name}/shape", dtype=ir.DataType.INT64)], step.name
    )
    if perm is not None:
        value = emission.op("Transpose", [value], f"{step.name}/back", perm=[int(i) for i in np.argsort(perm)])
    value.shape = ir.Shape(emission.layout.shape(shape))
    scale, offset = (
        None if weight is None else emission.layout.full(_along(float_array(weight), layer.axis, rank), rank)
        for weight in (layer.gamma, layer.beta)
    )
    return _scaled(emission, step, value, scale, offset)


@register_converter(keras.layers.RMSNormalization, nn.RMSNorm)
def convert_rms_norm(emission: Emission, step: Step) -> ir.Value:
    """Divide by √(mean(x²) + ε), and multiply by the learned scale."""
    layer, rank = step.layer, len(step.output_shape)
    scale = layer.scale if isinstance(layer, keras.layers.Layer) else step.arguments.get("scale")
    if isinstance(scale, TensorRef):
        step.refuse("a scale that the model computes", "Multiply it behind the normalization.")
    epsilon = keras.backend.epsilon() if layer.epsilon is None else float(layer.epsilon)
    f, x = Formula(emission, f"{step.name}/normalize", None), step.inputs[0]
    axes = tuple(
        emission.layout.axis(axis, rank) for axis in ((layer.axis,) if isinstance(layer.axis, int) else layer.axis)
    )
    value = f("Div", x, f("Sqrt", f("Add", _mean(f, f("Mul", x, x), axes), epsilon)))
    return _scaled(
        emission, step, value, None if scale is None else emission.layout.full(float_array(scale), rank), None
    )


@register_converter(keras.layers.UnitNormalization, nn.Normalize)
def convert_unit_norm(emission: Emission, step: Step) -> ir.Value:
    """Divide by the norm along axes, which counts as ε if it is smaller."""
    layer, rank = step.layer, len(step.output_shape)
    order = getattr(layer, "order", 2)
    if order not in {1, 2}:
        step.refuse(f"order={order}", "Use the norm of order 1 or 2.")
    given = 1e-12 if isinstance(layer, keras.layers.Layer) else layer.epsilon
    epsilon = keras.backend.epsilon() if given is None else float(given)
    axes = tuple(
        emission.layout.axis(axis, rank) for axis in ((layer.axis,) if isinstance(layer.axis, int) else layer.axis)
    )
    x = step.inputs[0]
    norm = emission.reduce(f"ReduceL{order}", x, axes, f"{step.name}/norm", None, keepdims=True)
    constant = emission.constant(f"{step.name}/epsilon", epsilon, np.float32)
    norm = emission.op("Max", [norm, constant], f"{step.name}/max")
    return emission.op("Div", [x, norm], step.name, step.output_shape)


@register_converter(keras.layers.Rescaling)
def convert_rescaling(emission: Emission, step: Step) -> ir.Value:
    """Scale and offset, each a single number or one number per channel."""
    a, b = (_by_channel(np.asarray(array)) for array in (step.layer.scale, step.layer.offset))
    return _affine(emission, step, a, b)


def _by_channel(array: np.ndarray) -> np.ndarray:
    """Shape the numbers as the layer does: under Keras's setting channels_first they belong to the leading axis."""
    if array.ndim and keras.config.image_data_format() == "channels_first":
        return array.reshape(array.shape + (1,) * (3 - array.ndim))
    return array


@register_converter(LayerScale)
def convert_layer_scale(emission: Emission, step: Step) -> ir.Value:
    """ConvNeXt's learned scale of each channel."""
    return _affine(emission, step, float_array(step.layer.gamma), np.zeros(()))


@register_converter(keras.layers.Normalization)
def convert_normalization(emission: Emission, step: Step) -> ir.Value:
    """(x - mean) / σ, or its inverse, with the adapted statistics."""
    layer = step.layer
    mean, variance = (np.asarray(keras.ops.convert_to_numpy(v), np.float64) for v in (layer.mean, layer.variance))
    sigma = np.maximum(np.sqrt(variance), keras.backend.epsilon())
    a, b = (sigma, mean) if layer.invert else (1 / sigma, -mean / sigma)
    return _affine(emission, step, a, b)


def _affine(emission: Emission, step: Step, a: np.ndarray, b: np.ndarray) -> ir.Value:
    """Add y = a · x + b; a or b that changes nothing adds no node.

    Args:
        emission: the emission to add it to.
        step: the layer.
        a: an array that broadcasts against the layer's input in Keras's layout: a scalar, or one number per channel.
        b: likewise.
    """
    value = step.inputs[0]
    for op_type, name, array, neutral in (("Mul", step.name, a, 1), ("Add", f"{step.name}/offset", b, 0)):
        if np.all(array == neutral):
            continue
        in_file = emission.layout.constant(np.asarray(array, np.float32), len(step.output_shape))
        constant = emission.constant(f"{name}/{op_type.lower()}", in_file)
        value = emission.op(op_type, [value, constant], name, step.output_shape)
    return value

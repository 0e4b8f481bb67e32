"""A model that computes the errors of quantization as sums, inside one compiled forward pass.

It holds the float network and the quantized one side by side and compares their tensors where they are made. Only a few
numbers a tensor leave the device, whatever the batch and the image size.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_qat.calibration import kernel_calls
from keras_qat.graph import Edge, Node, Trace
from keras_qat.layers import FakeQuantize, fake_quantize, scale_of
from keras_qat.transform import LayerCopy, copy_layer, rebuild
from keras_qat.types import OpKind, QuantSpec

TENSORS, KERNELS, OUTPUTS = "tensors", "kernels", "outputs"


def fake_quantize_nodes(quantized: Trace) -> tuple[Node, ...]:
    """The nodes that quantize their input, in the order of the graph."""
    return tuple(node for node in quantized.graph.nodes if node.kind is OpKind.FAKE_QUANTIZE)


def build_error_probe(exact: Trace, quantized: Trace) -> keras.Model:
    """Both networks in one, with the sums as outputs.

    Args:
        exact: the float model.
        quantized: what `apply_placement` made of it.

    Returns:
        A model from the inputs of both to a dictionary: `tensors`, what `TensorErrors` gives for each of
        `fake_quantize_nodes`; `kernels`, the `squared_error` of each layer of `kernel_calls`; `outputs`, that of each
        output of the model.
    """
    fakes, calls = fake_quantize_nodes(quantized), kernel_calls(quantized)
    read = {edge.consumer: edge.tensor for edge in exact.graph.edges if edge.index == 0}
    called_with = [read[node.name] for nodes in calls.values() for node in nodes]
    reference = _network(exact, [*(node.inputs[0] for node in fakes), *called_with], "exact")
    simulation = _network(quantized, [node.name for node in fakes], "simulated")
    # The networks are called as layers of a new model, so that the caller's names can't collide with those in here.
    inputs = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for tensor in reference.inputs]
    x, x_simulated = reference(inputs), simulation(inputs)
    tensors = [
        TensorErrors(quantized.calls[node.name].operation)(x[TENSORS][node.inputs[0]], x_simulated[TENSORS][node.name])
        for node in fakes
    ]
    kernels = [
        _kernel_error(
            exact.calls[nodes[0].name].operation,
            quantized.calls[nodes[0].name].operation,
            [x[TENSORS][read[node.name]] for node in nodes],
            f"kernel_{i}",
        )
        for i, nodes in enumerate(calls.values())
    ]
    outputs = [SquaredError(autocast=False)(*ys) for ys in zip(x[OUTPUTS], x_simulated[OUTPUTS], strict=True)]
    return keras.Model(inputs, {TENSORS: tensors, KERNELS: kernels, OUTPUTS: outputs}, name="error_probe")


def squared_error(x: Any, x_hat: Any) -> Any:
    """The two sums that an SQNR is made of.

    Args:
        x: tensor of any shape.
        x_hat: tensor of that shape.

    Returns:
        float64, shape (2,): Σ x², Σ (x - x̂)². In float32 a sum over millions of squares loses digits.
    """
    x, x_hat = ops.cast(x, "float64"), ops.cast(x_hat, "float64")
    return ops.stack([ops.sum(ops.square(x)), ops.sum(ops.square(x - x_hat))])


def clipped(x: Any, x_hat: Any, amax: Any, spec: QuantSpec) -> Any:
    """What saturates: the numbers that round to an integer beyond the grid.

    Args:
        x: float tensor of any shape.
        x_hat: `x` fake-quantized.
        amax: float32 scalar.
        spec: the integers.

    Returns:
        float64, shape (3,): how many saturate, how many there are, and Σ (x - x̂)² over those that saturate.
    """
    q = ops.round(ops.cast(x, "float32") / scale_of(ops.cast(amax, "float32"), spec))
    beyond = ops.cast(ops.logical_or(q < spec.q_min, q > spec.q_max), "float64")
    error = ops.square(ops.cast(x, "float64") - ops.cast(x_hat, "float64"))
    return ops.stack([ops.sum(beyond), ops.sum(ops.ones_like(beyond)), ops.sum(beyond * error)])


class SquaredError(keras.layers.Layer):
    """`squared_error` as a layer."""

    def call(self, x: Any, x_hat: Any) -> Any:
        """float64, shape (2,)."""
        return squared_error(x, x_hat)


class TensorErrors(keras.layers.Layer):
    """The sums of one quantized tensor.

    Args:
        fake: the layer that quantizes it.
    """

    def __init__(self, fake: FakeQuantize) -> None:
        super().__init__(autocast=False)
        self.spec, self.amax = fake.spec, ops.convert_to_numpy(fake.amax)

    def call(self, x: Any, x_simulated: Any) -> tuple[Any, Any, Any]:
        """The squared error of its own rounding, that of the whole network, and what is clipped."""
        x_hat = fake_quantize(x, self.amax, self.spec)
        return squared_error(x, x_hat), squared_error(x, x_simulated), clipped(x, x_hat, self.amax, self.spec)


def _network(traced: Trace, tensors: Iterable[str], name: str) -> keras.Model:
    """A copy of a network that gives its outputs and these tensors."""
    flowing: dict[str, Any] = {}

    def remember(edge: Edge, tensor: Any) -> Any:
        flowing[edge.tensor] = tensor
        return tensor

    model = rebuild(traced, copy_layer, remember)
    found = {tensor: flowing[tensor] for tensor in tensors}
    return keras.Model(list(model.inputs), {OUTPUTS: list(model.outputs), TENSORS: found}, name=name)


def _kernel_error(float_layer: Any, layer: Any, inputs: Sequence[Any], name: str) -> Any:
    """The squared error of W x against Ŵ x over all calls of a layer; W is the quantized network's own kernel."""
    w_x = LayerCopy(float_layer, f"{name}_exact", linear=True, weights_of=layer)
    w_x_hat = LayerCopy(layer, f"{name}_rounded", linear=True)
    errors = [SquaredError(autocast=False)(w_x(x), w_x_hat(x)) for x in inputs]
    return errors[0] if len(errors) == 1 else keras.layers.add(errors, dtype="float64")

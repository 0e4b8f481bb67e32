"""A model that computes the errors of quantization as sums, inside one compiled forward pass.

It holds the float network and the quantized one side by side and compares their tensors where they are computed. Only a
few numbers of each tensor leave the device, whatever the batch and image size.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_qat import calibration, graph, layers, transform
from keras_qat.types import OpKind, QuantSpec

TENSORS, KERNELS, OUTPUTS = "tensors", "kernels", "outputs"


def fake_quantize_nodes(quantized: graph.Trace) -> tuple[graph.Node, ...]:
    """Return the nodes that quantize their input, in the order of the graph."""
    return tuple(node for node in quantized.graph.nodes if node.kind is OpKind.FAKE_QUANTIZE)


def build_error_probe(exact: graph.Trace, quantized: graph.Trace) -> keras.Model:
    """Build a model of both networks that outputs the sums.

    Args:
        exact: The float model.
        quantized: The model that `apply_placement` made of it.

    Returns:
        A model from the inputs of both to a dictionary: `tensors`, what `TensorErrors` returns for each of
        `fake_quantize_nodes`; `kernels`, the `squared_error` of each layer of `kernel_calls`; `outputs`, that of each
        output of the model.
    """
    fakes, calls = fake_quantize_nodes(quantized), calibration.kernel_calls(quantized)
    read = {node.name: exact.graph.by_name[node.name].inputs[0] for nodes in calls.values() for node in nodes}
    reference = _network(exact, [*(node.inputs[0] for node in fakes), *read.values()], "exact")
    simulation = _network(quantized, [node.name for node in fakes], "simulated")
    # The networks are called as layers of a new model, so that the caller's names cannot collide with those in here.
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


def _network(traced: graph.Trace, tensors: Iterable[str], name: str) -> keras.Model:
    """Return a copy of a network that outputs its own outputs and these tensors."""
    model, flowing = calibration.copy_network(traced)
    outputs = {OUTPUTS: list(model.outputs), TENSORS: {tensor: flowing[tensor] for tensor in tensors}}
    return keras.Model(list(model.inputs), outputs, name=name)


def _kernel_error(float_layer: Any, layer: Any, inputs: Sequence[Any], name: str) -> Any:
    """Return the squared error of W x against Ŵ x over all calls of a layer, with W from the quantized network."""
    w_x = transform.LayerCopy(float_layer, f"{name}_exact", linear=True, weights_of=layer)
    w_x_hat = transform.LayerCopy(layer, f"{name}_rounded", linear=True)
    errors = [SquaredError(autocast=False)(w_x(x), w_x_hat(x)) for x in inputs]
    return errors[0] if len(errors) == 1 else keras.layers.add(errors, dtype="float64")


class TensorErrors(keras.layers.Layer):
    """Compute the sums of one quantized tensor.

    Args:
        fake: The layer that quantizes it.
    """

    def __init__(self, fake: layers.FakeQuantize) -> None:
        super().__init__(autocast=False)
        self.spec, self.amax = fake.spec, keras.ops.convert_to_numpy(fake.amax)

    def call(self, x: Any, x_simulated: Any) -> tuple[Any, Any, Any]:
        """Return the squared error of the tensor's own rounding, that of the whole network, and what is clipped."""
        x_hat = layers.fake_quantize(x, self.amax, self.spec)
        return squared_error(x, x_hat), squared_error(x, x_simulated), clipped(x, x_hat, self.amax, self.spec)


class SquaredError(keras.layers.Layer):
    """Compute `squared_error` as a layer."""

    def call(self, x: Any, x_hat: Any) -> Any:
        """Return the sums, float64, shape (2,)."""
        return squared_error(x, x_hat)


def squared_error(x: Any, x_hat: Any) -> Any:
    """Return the two sums of which an SQNR is made.

    Args:
        x: Tensor of any shape.
        x_hat: Tensor of the same shape.

    Returns:
        Σ x² and Σ (x - x̂)², float64, shape (2,). In float32 a sum over millions of squares would lose digits.
    """
    x, x_hat = keras.ops.cast(x, "float64"), keras.ops.cast(x_hat, "float64")
    return keras.ops.stack([keras.ops.sum(keras.ops.square(x)), keras.ops.sum(keras.ops.square(x - x_hat))])


def clipped(x: Any, x_hat: Any, amax: Any, spec: QuantSpec) -> Any:
    """Count the numbers that saturate, which round to an integer beyond the grid, and sum their error.

    Args:
        x: Float tensor of any shape.
        x_hat: The fake-quantized `x`.
        amax: The range, float32 scalar.
        spec: The integers.

    Returns:
        How many numbers saturate, how many there are, and Σ (x - x̂)² over those that saturate; float64, shape (3,).
    """
    q = keras.ops.round(keras.ops.cast(x, "float32") / layers.scale_of(keras.ops.cast(amax, "float32"), spec))
    beyond = keras.ops.cast(keras.ops.logical_or(q < spec.q_min, q > spec.q_max), "float64")
    error = keras.ops.square(keras.ops.cast(x, "float64") - keras.ops.cast(x_hat, "float64"))
    return keras.ops.stack(
        [keras.ops.sum(beyond), keras.ops.sum(keras.ops.ones_like(beyond)), keras.ops.sum(beyond * error)]
    )

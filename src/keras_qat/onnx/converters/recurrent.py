"""Recurrent layers, by ONNX's operators LSTM, GRU and RNN, in float: engines have no integer kernels for them.

ONNX's sequences are (time, batch, channels), its gates have another order than Keras's, and its weights have the
outputs in front and a first axis for the direction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from keras_qat.graph import TensorRef, known_type, lookup
from keras_qat.onnx.converters.activation import emit_activation
from keras_qat.onnx.converters.pooling import window_attributes
from keras_qat.onnx.emission import Emission, Step, float_array, register_converter
from keras_qat.onnx.layout import Shape

_END = np.iinfo(np.int64).max

_ACTIVATIONS: Mapping[Any, tuple[str, float | None, float | None]] = {
    keras.activations.tanh: ("Tanh", None, None),
    keras.activations.sigmoid: ("Sigmoid", None, None),
    keras.activations.relu: ("Relu", None, None),
    keras.activations.hard_sigmoid: ("HardSigmoid", 1 / 6, 0.5),
    keras.activations.softsign: ("Softsign", None, None),
    keras.activations.softplus: ("Softplus", None, None),
    keras.activations.linear: ("Affine", 1.0, 0.0),
}
"""ONNX's name of each activation, and its parameters."""


@dataclass(frozen=True)
class _Cell:
    """How ONNX has what a Keras cell has.

    Args:
        op_type: the operator.
        gates: ONNX's order of Keras's gates.
        states: how many states there are.
        functions: the attributes of the cell that are the operator's activations, in its order.
    """

    op_type: str
    gates: tuple[int, ...]
    states: int
    functions: tuple[str, ...]


_CELLS: Mapping[type, _Cell] = {
    # Keras: input, forget, candidate, output. ONNX: input, output, forget, candidate.
    keras.layers.LSTM: _Cell("LSTM", (0, 3, 1, 2), 2, ("recurrent_activation", "activation", "activation")),
    keras.layers.GRU: _Cell("GRU", (0, 1, 2), 1, ("recurrent_activation", "activation")),
    keras.layers.SimpleRNN: _Cell("RNN", (0,), 1, ("activation",)),
}


@register_converter(*_CELLS)
def convert_recurrent(emission: Emission, step: Step) -> tuple[ir.Value, ...]:
    """The operator, in Keras's order of the steps."""
    layer = step.layer
    states = _initial_states(step)
    y, *ends = _run(emission, step, layer, step.name, states)
    if layer.return_sequences and layer.go_backwards:
        y = _reversed(emission, y, f"{step.name}/backwards", axis=1)
    made = [y if layer.return_sequences else ends[0], *(ends if layer.return_state else ())]
    return tuple(
        emission.to_file_layout(_own(emission, value, step.name), shape, step.name)
        for value, shape in zip(made, step.output_shapes, strict=True)
    )


def _own(emission: Emission, value: ir.Value, name: str) -> ir.Value:
    """A value of its own for each output, since the last step may be both output and state."""
    return emission.op("Identity", [value], f"{name}/state")


def _initial_states(step: Step) -> list[ir.Value]:
    """The states that the call gives, (batch, units) each; empty for zeros."""
    given = step.arguments
    if given.get("mask") is not None:
        step.refuse("a mask", "Leave out `Masking` and `mask_zero`.")
    if step.layer.stateful:
        step.refuse("stateful=True", "Pass the state as `initial_state`, and return it with `return_state`.")
    states = keras.tree.flatten(given.get("initial_state"))
    return [step.operand(state)[0] for state in states if isinstance(state, TensorRef)]


def _run(emission: Emission, step: Step, layer: Any, name: str, states: Sequence[ir.Value]) -> tuple[ir.Value, ...]:
    """Add one operator.

    Returns:
        Its outputs (batch, time, units) in the order of time, and its last states (batch, units).
    """
    kind = lookup(layer, _CELLS)
    cell, units = layer.cell, layer.cell.units
    x = emission.to_keras_layout(step.inputs[0], step.input_shapes[0], name)
    x = emission.op("Transpose", [x], f"{name}/time_first", perm=[1, 0, 2])
    axes = emission.constant(f"{name}/axes", [0], np.int64)
    weights = {
        "kernel": _gates(float_array(cell.kernel).T, kind.gates, units),
        "recurrent_kernel": _gates(float_array(cell.recurrent_kernel).T, kind.gates, units),
        "bias": _biases(cell, kind.gates, units),
    }
    inputs: list[ir.Value | None] = [x]
    inputs += [emission.constant(f"{name}/{key}", array[np.newaxis]) for key, array in weights.items()]
    if states:
        inputs.append(None)
        inputs += [emission.op("Unsqueeze", [state, axes], f"{name}/initial_state") for state in states]
    attributes = {
        "hidden_size": units,
        "direction": "reverse" if layer.go_backwards else "forward",
        **_functions(step, cell, kind),
    }
    if kind.op_type == "GRU":
        attributes["linear_before_reset"] = int(cell.reset_after)
    y, *ends = emission.ops(kind.op_type, inputs, name, [ir.DataType.FLOAT] * (1 + kind.states), **attributes)
    direction = emission.constant(f"{name}/direction", [1], np.int64)
    # Squeezed first, two sequences side by side get wrong numbers in OpenVINO 2026.4, in a file with an open batch.
    y = emission.op("Transpose", [y], f"{name}/batch_first", perm=[2, 1, 0, 3])
    y = emission.op("Squeeze", [y, direction], f"{name}/squeeze")
    return (y, *(emission.op("Squeeze", [end, axes], f"{name}/last") for end in ends))


def _gates(array: np.ndarray, order: tuple[int, ...], units: int) -> np.ndarray:
    """The rows of each gate, in another order of the gates."""
    return np.ascontiguousarray(np.concatenate([array[i * units : (i + 1) * units] for i in order]))


def _biases(cell: Any, order: tuple[int, ...], units: int) -> np.ndarray:
    """The bias of the input's product, then that of the state's, which Keras has for a GRU that resets after it."""
    given = float_array(cell.bias) if cell.use_bias else np.zeros(len(order) * units, np.float32)
    pair = (given[0], given[1]) if given.ndim == 2 else (given, np.zeros_like(given))  # noqa: PLR2004
    return np.concatenate([_gates(np.asarray(bias), order, units) for bias in pair])


def _functions(step: Step, cell: Any, kind: _Cell) -> dict[str, Any]:
    """The attributes that name the activations."""
    functions = [getattr(cell, name) for name in kind.functions]
    for function in functions:
        if function not in _ACTIVATIONS:
            step.refuse(f"the activation {function!r}", "Use tanh, sigmoid, hard_sigmoid, relu, softsign or softplus.")
    known = [_ACTIVATIONS[function] for function in functions]
    attributes: dict[str, Any] = {"activations": [name for name, _, _ in known]}
    for key, index in (("activation_alpha", 1), ("activation_beta", 2)):
        if any(entry[index] is not None for entry in known):
            attributes[key] = [float(entry[index] or 0) for entry in known]
    return attributes


def _reversed(emission: Emission, x: ir.Value, name: str, axis: int) -> ir.Value:
    constants = [
        emission.constant(f"{name}/{key}", [n], np.int64)
        for key, n in (("starts", _END), ("ends", -_END), ("axes", axis), ("steps", -1))
    ]
    return emission.op("Slice", [x, *constants], name)


_MERGES: Mapping[str, Callable[[Emission, ir.Value, ir.Value, str], ir.Value]] = {
    "concat": lambda e, a, b, name: e.op("Concat", [a, b], f"{name}/merge", axis=-1),
    "sum": lambda e, a, b, name: e.op("Add", [a, b], f"{name}/merge"),
    "mul": lambda e, a, b, name: e.op("Mul", [a, b], f"{name}/merge"),
    "ave": lambda e, a, b, name: e.op(
        "Mul", [e.op("Add", [a, b], f"{name}/sum"), e.constant(f"{name}/half", 0.5, np.float32)], f"{name}/merge"
    ),
}


@register_converter(keras.layers.Bidirectional)
def convert_bidirectional(emission: Emission, step: Step) -> tuple[ir.Value, ...]:
    """One operator for each direction, and their outputs merged."""
    layer, forward, backward = step.layer, step.layer.forward_layer, step.layer.backward_layer
    if None in (known_type(forward, _CELLS), known_type(backward, _CELLS)):
        step.refuse(f"a {type(forward).__name__} inside", "Wrap an LSTM, a GRU or a SimpleRNN.")
    states = _initial_states(step)
    half = len(states) // 2
    outputs, ends = [], []
    for part, given in ((forward, states[:half]), (backward, states[half:])):
        suffix = "backward" if part is backward else "forward"
        y, *last = _run(emission, step, part, f"{step.name}/{suffix}", given)
        outputs.append(y if layer.return_sequences else last[0])
        ends += last if layer.return_state else []
    merged = (
        outputs
        if layer.merge_mode is None
        else [_MERGES[layer.merge_mode](emission, outputs[0], outputs[1], step.name)]
    )
    return tuple(
        emission.to_file_layout(_own(emission, value, step.name), shape, step.name)
        for value, shape in zip((*merged, *ends), step.output_shapes, strict=True)
    )


@register_converter(keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)
def convert_conv_lstm(emission: Emission, step: Step) -> tuple[ir.Value, ...]:
    """The steps one after another, with one Conv of all gates for the input and one for the state."""
    layer, cell, given = step.layer, step.layer.cell, step.input_shapes[0]
    if given[1] is None or _initial_states(step):
        step.refuse("a sequence of unknown length, or an initial state", "Give the model a fixed input shape.")
    image: Shape = (given[0], *given[2:])
    rank = len(image)
    last = layer.data_format == "channels_last"
    kernels = [
        emission.constant(f"{step.name}/{name}", np.ascontiguousarray(_in_front(float_array(getattr(cell, name)))))
        for name in ("kernel", "recurrent_kernel")
    ]
    bias = [emission.constant(f"{step.name}/bias", float_array(cell.bias))] if cell.use_bias else []
    to_conv = (0, rank - 1, *range(1, rank - 1)) if last else tuple(range(rank))
    x = emission.to_keras_layout(step.inputs[0], given, step.name)
    sizes = [image[axis] for axis in to_conv][2:]
    window = window_attributes(step, cell.kernel_size, cell.strides, cell.padding, tuple(sizes), cell.dilation_rate)
    ones = (1,) * (rank - 2)
    inner = window_attributes(step, cell.kernel_size, ones, "same", (None,) * (rank - 2), ones)
    frames = [_frame(emission, step, x, t, to_conv) for t in range(given[1])]
    outputs: list[ir.Value] = []
    h: ir.Value | None = None
    c: ir.Value | None = None
    for frame in reversed(frames) if layer.go_backwards else frames:
        gates = emission.op("Conv", [frame, kernels[0], *bias], f"{step.name}/input", **window)
        if h is not None:
            recurrent = emission.op("Conv", [h, kernels[1]], f"{step.name}/recurrent", **inner)
            gates = emission.op("Add", [gates, recurrent], f"{step.name}/gates")
        h, c = _conv_cell(emission, step, gates, c)
        outputs.append(h)
    if h is None or c is None:
        step.refuse("a sequence without steps", "Give the model a longer input.")
    back = (0, *range(2, rank), 1) if last else tuple(range(rank))
    ends = [emission.op("Transpose", [value], f"{step.name}/last", perm=list(back)) for value in (h, c)]
    if layer.return_sequences:
        axes = emission.constant(f"{step.name}/time", [1], np.int64)
        rows = [emission.op("Transpose", [y], f"{step.name}/frame", perm=list(back)) for y in outputs]
        rows = [emission.op("Unsqueeze", [row, axes], f"{step.name}/row") for row in rows]
        sequence = emission.op("Concat", rows, step.name, axis=1)
    else:
        sequence = _own(emission, ends[0], step.name)
    made = (sequence, *(ends if layer.return_state else ()))
    return tuple(
        emission.to_file_layout(value, shape, step.name) for value, shape in zip(made, step.output_shapes, strict=True)
    )


def _in_front(kernel: np.ndarray) -> np.ndarray:
    """The kernel (…, in, out) as (out, in, …)."""
    return np.transpose(kernel, (kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2)))


def _frame(emission: Emission, step: Step, x: ir.Value, t: int, perm: tuple[int, ...]) -> ir.Value:
    """Step t of a sequence, with the channels in front."""
    index = emission.constant(f"{step.name}/step", t, np.int64)
    frame = emission.op("Gather", [x, index], f"{step.name}/step_{t}", axis=1)
    return emission.op("Transpose", [frame], f"{step.name}/frame_{t}", perm=list(perm))


def _conv_cell(emission: Emission, step: Step, gates: ir.Value, c: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """The next output and state, from the sums of input, forget, candidate and output gate."""
    cell, name, units = step.layer.cell, step.name, step.layer.cell.filters

    def activate(function: Any, x: ir.Value, suffix: str) -> ir.Value:
        y = emit_activation(emission, function, x, step, f"{name}/{suffix}")
        y.shape = None  # a frame has other axes than the output of the layer
        return y

    parts = []
    for gate in range(4):
        cuts = [
            emission.constant(f"{name}/gate_{key}", [n], np.int64)
            for key, n in (("starts", gate * units), ("ends", (gate + 1) * units), ("axes", 1))
        ]
        parts.append(emission.op("Slice", [gates, *cuts], f"{name}/gate_{gate}"))
    i, f, o = (activate(cell.recurrent_activation, parts[n], "gate") for n in (0, 1, 3))
    new = emission.op("Mul", [i, activate(cell.activation, parts[2], "new")], f"{name}/add")
    if c is not None:
        new = emission.op("Add", [emission.op("Mul", [f, c], f"{name}/kept"), new], f"{name}/state")
    return emission.op("Mul", [o, activate(cell.activation, new, "out")], name), new

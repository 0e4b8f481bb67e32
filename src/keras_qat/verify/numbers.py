"""Does a file compute every quantized tensor as the simulation does?

End to end, two correct engines differ: they add in different orders, so that now and then a number on the border of two
steps is rounded the other way, and each such step moves hundreds of numbers of the next tensor towards other borders.
After a few layers the two have drifted apart by about as much as rounding itself costs, and images whose two best
classes nearly tie change class (docs/architecture.md has the figures). That says nothing about the file.

Therefore the file is cut at every Q/DQ pair: each section reads the simulation's own integers q, and its result q' is
compared with the integers that the simulation has there,

    e = |q' - q|        in steps.

A section is one or two layers. In a right file a number differs only where what the simulation rounds, x, lies next to
the border of two steps, and another order of the sum carried it across. How far it must have been carried is known:

    d = (q' - ½) - x / s  if q' > q,    d = x / s - (q' + ½)  if q' < q,    in steps.

How many numbers lie on a border depends on the network: behind an average of four integers, a quarter of them do,
exactly. Therefore d is judged, and of the numbers that differ only those are counted which did not lie on a border. An
engine that adds integers rounds the bias of a convolution to multiples of s_x · s_w, which explains

    r = s_x · s_w / (2 s)

and no more. A wrong scale, sign, bias or padding, or a saturating kernel, carries numbers further, and shows at the
tensor where it happens.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from keras_qat import evaluation, onnx, runtimes
from keras_qat.errors import DataError, StorageError, UserError
from keras_qat.graph import input_names, trace
from keras_qat.layers import FakeQuantize, scale_of
from keras_qat.progress import track
from keras_qat.text import shortened

_NOT_FINITE = "the file gives numbers that aren't finite, or that aren't numbers"
"""Why the error is null in JSON, which has no infinity."""

_REMEDY = "Export it again; `keras-qat doctor` examines it."

_OUTPUT_STEPS = 127
"""Steps in the largest magnitude of an output, for which quantization defines none."""

_DIFFERS = 0.5
"""A number differs from this many steps on."""

_BORDER = 1e-3
"""A number lies on the border of two steps up to this distance, in steps: float32 has 24 bits, and q up to 8."""


@dataclass(frozen=True)
class TensorError:
    """How far one tensor of the file is from the simulation, if all that it is computed from is equal.

    Args:
        tensor: name of the FakeQuantize layer, or of the model's output.
        differing: share of its numbers that are half a step or more away, 0 to 1.
        worst: the largest error, in steps. A step of an output is 1/127 of its largest magnitude. Infinite if a number
            of the file isn't finite.
        carried: the largest d - r, in steps: how far a number that differs was carried to cross the border of two
            steps, beyond the rounding of a bias. 0 for an output, which isn't rounded.
        strayed: share of its numbers that were carried further than 1/1000 of a step, 0 to 1; for an output, all that
            differ.
    """

    tensor: str
    differing: float
    worst: float
    carried: float = 0.0
    strayed: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON can hold it: an infinite one is null, with the reason.

        Example:
            >>> TensorError("relu", 1.0, float("inf")).to_dict()["worst"] is None
            True
        """
        if math.isfinite(self.worst):
            return asdict(self)
        return {**asdict(self), "worst": None, "reason": _NOT_FINITE}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "TensorError":
        """Read what `to_dict` made.

        Raises:
            KeyError: If a field is missing.
        """
        worst = math.inf if value["worst"] is None else value["worst"]
        # Earlier versions counted all numbers that differ.
        strayed = value.get("strayed", value["differing"])
        return cls(value["tensor"], value["differing"], worst, value.get("carried", 0.0), strayed)


def tensor_errors(
    model: Any,
    path: str | Path,
    batches: Iterable[tuple[Any, Any]],
    *,
    total: int | None = None,
    normalize: Callable[[np.ndarray], Any] | None = None,
) -> tuple[TensorError, ...]:
    """Compare a file with the Keras model that it was exported from, section by section, in the engine it is for.

    A file for an engine that can't run here, and one for TensorRT, is compared in ONNX Runtime.

    Args:
        model: the quantized Keras model, as from `apply_placement`.
        path: its ONNX file.
        batches: (inputs, labels); inputs is an array, float32 (batch, height, width, channels), or for a model with
            several inputs a list of arrays, or a dictionary by the names of the inputs. A few dozen images are enough.
            A batch is held with all its activations, so it should be small; for a model with a fixed batch it is cut
            and filled up to that size.
        total: number of batches, for the progress bar.
        normalize: for a file that normalizes its images itself, whose batches are whole pixels, 0 to 255: computes
            what the Keras model is fed instead, such as `Preprocessing.normalize`.

    Returns:
        The error of every quantized tensor, in the order of the file, then of the output.

    Raises:
        DataError: If there are no images, or they don't fit the file.
        StorageError: If the file can't be read, or lacks the Q/DQ pair of a quantized tensor.
    """
    layers = {layer.name: layer for layer in model.layers if isinstance(layer, FakeQuantize)}
    file = _cut(path, layers)
    rounded = [tensor for name in file.fed_as for tensor in (layers[name].input, layers[name].output)]
    simulate = keras.Model(model.inputs, [*model.outputs, *rounded])
    layout = onnx.layout_of(trace(model))
    run = runtimes.open_graph(file.content, file.target)
    tallies = {name: _Tally() for name in (*file.outputs, *file.fed_as)}
    allowed = {name: _bias_rounding(file, name, layers[name]) for name in file.fed_as}
    names, fixed = input_names(model), evaluation.fixed_batch(runtimes.KerasRuntime(model).inputs)
    # A list even for one input: whatever a batch is fed as, its arrays are in the order of the inputs.
    arrays = (
        [np.asarray(x) for x in _in_order(batch, names)] for batch, _ in track(batches, "comparing tensors", total)
    )
    for inputs in evaluation.of_size(arrays, fixed):
        normalized = inputs if normalize is None else [np.asarray(normalize(x)) for x in inputs]
        made = [np.asarray(x) for x in keras.tree.flatten(simulate.predict_on_batch(normalized))]
        simulated = dict(zip(file.outputs, made[: len(file.outputs)], strict=True))
        pairs = zip(made[len(file.outputs) :: 2], made[len(file.outputs) + 1 :: 2], strict=True)
        steps = {
            name: _in_steps(x, x_hat, layers[name], layout) for name, (x, x_hat) in zip(file.fed_as, pairs, strict=True)
        }
        fed = {
            name: evaluation.convert(x, file.inputs[name], name) for name, x in zip(file.inputs, inputs, strict=True)
        }
        fed |= {file.fed_as[name]: q for name, (_, q) in steps.items()}
        with runtimes.engine_failure("The engine failed to run the file", str(path), UserError, _REMEDY):
            results = run(fed)
        for name, deployed in zip(tallies, results, strict=True):
            if name in steps:
                tallies[name].add_integers(*steps[name], deployed, allowed[name])
            else:
                tallies[name].add_outputs(_output_steps(deployed, simulated[name]))
    if not all(tally.numbers for tally in tallies.values()):
        raise DataError("There is nothing to compare on. Received: 0 images. Give at least one batch.")
    in_order = (*file.fed_as, *file.outputs)
    return tuple(tallies[name].error(name) for name in in_order)


def _in_order(batch: Any, names: Sequence[str]) -> Sequence[Any]:
    """The arrays of a batch in the order of the model's inputs."""
    if isinstance(batch, Mapping):
        return [batch[name] for name in names]
    return batch if isinstance(batch, list | tuple) else [batch]


@dataclass
class _Tally:
    """The errors of one tensor over the batches so far."""

    differing: int = 0
    numbers: int = 0
    worst: float = 0.0
    carried: float = 0.0
    strayed: int = 0

    def add_integers(self, ratio: np.ndarray, q: np.ndarray, deployed: np.ndarray, r: np.ndarray) -> None:
        """Add the integers q' of the file, where the simulation rounds x / s to q and a bias explains r."""
        e = deployed.astype(np.int32) - q
        self._add(np.abs(e))
        if e.any():
            d = np.where(e > 0, deployed - 0.5 - ratio, ratio - (deployed + 0.5)) - r
            d = d[e != 0]
            self.carried = max(self.carried, float(d.max()))
            self.strayed += int(np.count_nonzero(d > _BORDER))

    def add_outputs(self, e: np.ndarray) -> None:
        """Add the errors of a float output, in steps."""
        self.strayed += self._add(e)

    def error(self, name: str) -> TensorError:
        """The errors of all batches."""
        return TensorError(name, self.differing / self.numbers, self.worst, self.carried, self.strayed / self.numbers)

    def _add(self, e: np.ndarray) -> int:
        # NaN compares false, and must count as different.
        e = np.where(np.isfinite(e), e, np.inf)
        differing = int(np.count_nonzero(e >= _DIFFERS))
        self.differing += differing
        self.numbers += e.size
        self.worst = max(self.worst, float(e.max()))
        return differing


@dataclass(frozen=True)
class _CutFile:
    """A file cut at every Q/DQ pair.

    Args:
        content: the file; its outputs are the model's own, then the integers that each Q writes.
        target: the engine that the file is for; "" for a float file.
        inputs: {name: element type} of the model's own inputs.
        outputs: names of the model's own outputs.
        fed_as: {tensor: the input that its DQ reads}, in the order of the integers among the outputs.
        convolutions: {tensor: the nodes with a bias between it and the pairs before it}.
    """

    content: bytes
    target: str
    inputs: dict[str, np.dtype]
    outputs: tuple[str, ...]
    fed_as: dict[str, str]
    convolutions: dict[str, tuple[ir.Node, ...]]


def _cut(path: str | Path, layers: Collection[str]) -> _CutFile:
    """Cut each pair: Q's integers become an output, what DQ reads becomes an input."""
    file = onnx.read_onnx_file(path)
    file.require_data()
    # The cut file is given to the engine as bytes, which have no folder for external data.
    model = ir.external_data.load_to_model(file.model)
    graph = model.graph
    inputs = {str(v.name): (v.dtype or ir.DataType.FLOAT).numpy() for v in graph.inputs}
    outputs = tuple(str(v.name) for v in graph.outputs)
    fed_as: dict[str, str] = {}
    convolutions: dict[str, tuple[ir.Node, ...]] = {}
    for node in graph:
        name = (node.name or "").removesuffix("/QuantizeLinear")
        if node.op_type != "QuantizeLinear" or name not in layers:
            continue
        integers = node.outputs[0]
        _describe(integers, node)
        fed = ir.val(f"{integers.name}/fed", integers.dtype, integers.shape)
        integers.replace_all_uses_with(fed)
        graph.inputs.append(fed)
        graph.outputs.append(integers)
        fed_as[name] = str(fed.name)
        convolutions[name] = tuple(_biased_above(node))
    missing = sorted(set(layers) - set(fed_as))
    if missing:
        raise StorageError(
            f"The file {str(path)!r} is of another model. Received: a file without a QuantizeLinear for "
            f"{missing[0]!r}. Export the model again."
        )
    try:
        content = ir.to_proto(model).SerializeToString()
    except Exception as error:  # onnx-ir and protobuf each fail in their own way, as for 2 GiB or more.
        raise StorageError(
            f"The file can't be cut at its Q/DQ pairs: {shortened(error)}. Received: {str(path)!r}. Export it again."
        ) from error
    return _CutFile(content, file.target, inputs, outputs, fed_as, convolutions)


def _describe(integers: ir.Value, quantize: ir.Node) -> None:
    """Give integers the type and shape that an input or output of a file needs, and the file leaves out elsewhere."""
    x, zero_point = onnx.input_at(quantize, 0), onnx.input_at(quantize, 2)
    integers.dtype = integers.dtype or (None if zero_point is None else zero_point.dtype) or ir.DataType.UINT8
    integers.shape = integers.shape or (None if x is None else x.shape)


def _biased_above(quantize: ir.Node) -> Iterator[ir.Node]:
    """The nodes with a bias that a tensor is computed from, up to the pairs before it."""
    seen: set[ir.Node] = set()
    stack = [quantize.inputs[0]]
    while stack:
        value = stack.pop()
        node = None if value is None else value.producer()
        if node is None or node in seen or node.op_type == "DequantizeLinear":
            continue
        seen.add(node)
        stack.extend(node.inputs)
        if node.op_type in _BIASED and onnx.input_at(node, 2) is not None:
            yield node


_BIASED = frozenset({"Conv", "ConvTranspose", "Gemm"})


def _bias_rounding(file: _CutFile, name: str, layer: FakeQuantize) -> np.ndarray:
    """r: how far the rounding of the biases before a tensor can carry its numbers, in steps.

    Returns:
        Shape (1, channels, 1, …) where one convolution has that many channels, otherwise a scalar.
    """
    s = np.asarray(keras.ops.convert_to_numpy(scale_of(layer.amax, layer.spec)), np.float64)
    each = [r for node in file.convolutions[name] if (r := onnx.product_scale(node)) is not None]
    if len(each) == 1 and each[0].size == layer.output.shape[-1]:
        shape = (1, -1, *[1] * (len(layer.output.shape) - 2))
        return np.asarray(each[0] / (2 * s.min())).reshape(shape)
    return np.asarray(sum(float(r.max()) for r in each) / (2 * s.min()))


def _in_steps(
    x: np.ndarray, x_hat: np.ndarray, layer: FakeQuantize, layout: onnx.Layout
) -> tuple[np.ndarray, np.ndarray]:
    """A tensor in steps before it is rounded, with the zero-point added, and its integers, in the file's layout."""
    s = np.asarray(keras.ops.convert_to_numpy(scale_of(layer.amax, layer.spec)))
    ratio = x / s + layer.spec.zero_point
    q = (np.round(x_hat / s) + layer.spec.zero_point).astype(layer.spec.storage)
    order = layout.to_file(q.ndim)
    return ratio.transpose(order), np.ascontiguousarray(q.transpose(order))


def _output_steps(deployed: np.ndarray, simulated: np.ndarray) -> np.ndarray:
    """The error of an output, in steps. Integers and truth values are compared as float64, in which none wraps."""
    expected = simulated.astype(np.float64)
    step = (float(np.abs(expected).max()) or 1.0) / _OUTPUT_STEPS
    errors: np.ndarray = np.abs(deployed.astype(np.float64) - expected) / step
    return errors

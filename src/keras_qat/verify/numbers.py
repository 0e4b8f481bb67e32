"""Does a file compute every quantized tensor as the simulation does?

End to end, two correct engines differ: they add in different orders, so that now and then a number on the border of two
steps is rounded the other way, and each such step moves hundreds of numbers of the next tensor towards other borders.
After a few layers the two have drifted apart by about as much as rounding itself costs, and images whose two best
classes nearly tie change class (docs/architecture.md has the figures). That says nothing about the file.

Therefore the file is cut at every Q/DQ pair: each section reads the simulation's own integers q, and its result q' is
compared with the integers that the simulation has there,

    e = |q' - q|        in steps.

A section is one or two layers, so that borders explain a step on a few numbers in a thousand; a wrong scale, sign, bias
or padding, or a saturating kernel, shows at the tensor where it happens.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from keras_qat import evaluation, onnx, runtimes
from keras_qat.errors import DataError, StorageError
from keras_qat.graph import input_names, trace
from keras_qat.layers import FakeQuantize, scale_of
from keras_qat.progress import track

_NOT_FINITE = "the file gives numbers that aren't finite, or that aren't numbers"
"""Why the error is null in JSON, which has no infinity."""

_OUTPUT_STEPS = 127
"""Steps in the largest magnitude of an output, for which quantization defines none."""

_DIFFERS = 0.5
"""A number differs from this many steps on."""


@dataclass(frozen=True)
class TensorError:
    """How far one tensor of the file is from the simulation, if all that it is computed from is equal.

    Args:
        tensor: name of the FakeQuantize layer, or of the model's output.
        differing: share of its numbers that are half a step or more away, 0 to 1.
        worst: the largest error, in steps. A step of an output is 1/127 of its largest magnitude. Infinite if a number
            of the file isn't finite.
    """

    tensor: str
    differing: float
    worst: float

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
        return cls(value["tensor"], value["differing"], worst)


def tensor_errors(
    model: Any,
    path: str | Path,
    batches: Iterable[tuple[Any, Any]],
    *,
    total: int | None = None,
    normalize: Callable[[np.ndarray], Any] | None = None,
) -> tuple[TensorError, ...]:
    """Compare a file with the Keras model that it was exported from, section by section, in ONNX Runtime.

    Args:
        model: the quantized Keras model, as from `apply_placement`.
        path: its ONNX file.
        batches: (inputs, labels); inputs is an array, float32 (batch, height, width, channels), or for a model with
            several inputs a list of arrays, or a dictionary by the names of the inputs. A few dozen images are enough.
            A batch is held with all its activations, so it should be small.
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
    simulate = keras.Model(model.inputs, [*model.outputs, *(layers[name].output for name in file.fed_as)])
    layout = onnx.layout_of(trace(model))
    session = runtimes.open_session(file.content)
    tallies = {name: _Tally() for name in (*file.outputs, *file.fed_as)}
    for batch, _ in track(batches, "comparing tensors", total):
        inputs = [np.asarray(x) for x in _in_order(batch, input_names(model))]
        normalized = inputs if normalize is None else [np.asarray(normalize(x)) for x in inputs]
        simulated = dict(zip(tallies, map(np.asarray, simulate.predict_on_batch(normalized)), strict=True))
        q = {name: _integers(simulated[name], layers[name], layout) for name in file.fed_as}
        fed = {
            name: evaluation.convert(x, file.inputs[name], name) for name, x in zip(file.inputs, inputs, strict=True)
        }
        fed |= {file.fed_as[name]: integers for name, integers in q.items()}
        for name, deployed in zip(tallies, session.run(None, fed), strict=True):
            tallies[name].add(
                np.abs(deployed.astype(np.int32) - q[name]) if name in q else _output_steps(deployed, simulated[name])
            )
    if not all(tally.numbers for tally in tallies.values()):
        raise DataError("There is nothing to compare on. Received: 0 images. Give at least one batch.")
    in_order = (*file.fed_as, *file.outputs)
    return tuple(TensorError(name, tallies[name].share, tallies[name].worst) for name in in_order)


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

    def add(self, e: np.ndarray) -> None:
        # NaN compares false, and must count as different.
        e = np.where(np.isfinite(e), e, np.inf)
        self.differing += int(np.count_nonzero(e >= _DIFFERS))
        self.numbers += e.size
        self.worst = max(self.worst, float(e.max()))

    @property
    def share(self) -> float:
        return self.differing / self.numbers


@dataclass(frozen=True)
class _CutFile:
    """A file cut at every Q/DQ pair.

    Args:
        content: the file; its outputs are the model's own, then the integers that each Q writes.
        inputs: {name: element type} of the model's own inputs.
        outputs: names of the model's own outputs.
        fed_as: {tensor: the input that its DQ reads}, in the order of the integers among the outputs.
    """

    content: bytes
    inputs: dict[str, np.dtype]
    outputs: tuple[str, ...]
    fed_as: dict[str, str]


def _cut(path: str | Path, layers: Collection[str]) -> _CutFile:
    """Cut each pair: Q's integers become an output, what DQ reads becomes an input."""
    model = onnx.read_onnx_file(path).model
    graph = model.graph
    inputs = {str(v.name): (v.dtype or ir.DataType.FLOAT).numpy() for v in graph.inputs}
    outputs = tuple(str(v.name) for v in graph.outputs)
    fed_as: dict[str, str] = {}
    for node in graph:
        name = (node.name or "").removesuffix("/QuantizeLinear")
        if node.op_type != "QuantizeLinear" or name not in layers:
            continue
        integers = node.outputs[0]
        fed = ir.val(f"{integers.name}/fed", integers.dtype, integers.shape)
        integers.replace_all_uses_with(fed)
        graph.inputs.append(fed)
        graph.outputs.append(integers)
        fed_as[name] = str(fed.name)
    missing = sorted(set(layers) - set(fed_as))
    if missing:
        raise StorageError(
            f"The file {str(path)!r} is of another model. Received: a file without a QuantizeLinear for "
            f"{missing[0]!r}. Export the model again."
        )
    return _CutFile(ir.to_proto(model).SerializeToString(), inputs, outputs, fed_as)


def _integers(x_hat: np.ndarray, layer: FakeQuantize, layout: onnx.Layout) -> np.ndarray:
    """The stored integers of a fake-quantized tensor, in the file's layout."""
    s = np.asarray(keras.ops.convert_to_numpy(scale_of(layer.amax, layer.spec)))
    q = (np.round(x_hat / s) + layer.spec.zero_point).astype(layer.spec.storage)
    return np.ascontiguousarray(q.transpose(layout.to_file(q.ndim)))


def _output_steps(deployed: np.ndarray, simulated: np.ndarray) -> np.ndarray:
    """The error of a float output, in steps."""
    step = (float(np.abs(simulated).max()) or 1.0) / _OUTPUT_STEPS
    errors: np.ndarray = np.abs(deployed - simulated) / step
    return errors

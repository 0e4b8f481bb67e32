"""A file and what it was made from.

A SavedModel against its Keras model: outputs only, since its tensors can't be cut apart.

One file held to its placement, edge for edge, and to its Keras model, tensor by tensor and class by class.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat import graph, runtimes
from keras_qat.layers import FakeQuantize
from keras_qat.onnx import read_contents
from keras_qat.types import Placement
from keras_qat.verify.deployed import Finding
from keras_qat.verify.numbers import TensorError, tensor_errors
from keras_qat.verify.outputs import Inputs, OutputErrors, compare_outputs
from keras_qat.verify.promises import class_miss, score_miss, tensor_miss
from keras_qat.verify.results import FileCheck
from keras_qat.verify.structure import verify_file


@dataclass(frozen=True, eq=False)
class Case:
    """One ONNX file to hold to its origin.

    Args:
        name: what a message calls it.
        file: the ONNX file.
        model: the Keras model that it was exported from.
        placement: what it was planned to be; `None` if that isn't known, or nothing was to be quantized.
        baseline: the float Keras model, by which the share of equal classes is promised; `None` if it isn't known.
    """

    name: str
    file: Path
    model: Any
    placement: Placement | None = None
    baseline: Any = None

    @property
    def quantized(self) -> bool:
        """Whether activations of the Keras model are quantized."""
        return is_quantized(self.model)


def is_quantized(model: Any) -> bool:
    """Whether activations of a Keras model are quantized.

    Where only weights are, nothing is rounded at run time, and the file computes the same to many digits.

    Example:
        >>> import keras
        >>> is_quantized(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        False
    """
    return any(isinstance(layer, FakeQuantize) for layer in model.layers)


def check_saved_model(path: Path, model: Any, inputs: Inputs) -> FileCheck:
    """Hold a SavedModel's outputs to its Keras model.

    A quantized one is compared, but held to nothing: its signed tensors saturate a step earlier (docs/saved_model.md),
    and two runs of a quantized network drift apart.

    Args:
        path: the folder.
        model: that it was exported from.
        inputs: what both are fed.

    Raises:
        StorageError: the folder can't be read.
    """
    with ExitStack() as stack:
        deployed = stack.enter_context(runtimes.open_runtime(path, "tensorflow"))
        simulated = stack.enter_context(runtimes.KerasRuntime(model))
        meaning = graph.score_meaning(graph.trace(model))
        outputs = compare_outputs(_InOrder(deployed, simulated.inputs), simulated, inputs, None, meaning)
    return FileCheck(
        name=path.name,
        path=str(path),
        precision="fp32",
        size_bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        pairs=0,
        edges=None,
        findings=(),
        tensors=(),
        sqnr=outputs.sqnr,
        agreement=outputs.agreement,
        keras_agreement=None,
        images=inputs.images,
        miss=None if is_quantized(model) else score_miss(path.name, outputs.sqnr),
        held=not is_quantized(model),
    )


class _InOrder(runtimes.Runtime):
    """A SavedModel that takes its inputs in the model's order, not in that of their names."""

    def __init__(self, runtime: runtimes.Runtime, order: Sequence[runtimes.TensorSpec]) -> None:
        names = [spec.name for spec in order]
        known = {spec.name: spec for spec in runtime.inputs}
        specs = tuple(known[name] for name in names) if set(names) == set(known) else runtime.inputs
        super().__init__(runtime.engine, runtime.device, specs, runtime.outputs)
        self._runtime = runtime
        self._order = [specs.index(spec) for spec in runtime.inputs]

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return self._runtime.run(*(inputs[i] for i in self._order))


_COMPARED_BATCHES = 4
"""Tensor by tensor few images do: each of their numbers counts."""


def check_file(case: Case, inputs: Inputs) -> FileCheck:
    """Hold a file to all that is promised of it, in ONNX Runtime.

    Args:
        case: the file, and what it was made from.
        inputs: what both are fed.

    Returns:
        What was found. A file whose pairs aren't those of the placement isn't run.

    Raises:
        StorageError: the file can't be read, or is of another model.
        DataError: the inputs don't fit the file.
    """
    contents = read_contents(case.file)
    half = contents.precision == "fp16"
    planned = None if case.placement is None else verify_file(case.file, case.placement, model=case.model)
    findings = () if planned is None else planned.findings
    tensors: tuple[TensorError, ...] = ()
    outputs, miss = OutputErrors(None, None, None), _structural_miss(case, findings)
    if not findings:
        tensors = _tensors(case, inputs) if case.quantized else ()
        outputs = _outputs(case, inputs)
        miss = tensor_miss(case.name, tensors, half=half) or _output_miss(case, inputs, outputs, half=half)
    return FileCheck(
        name=case.name,
        path=str(case.file),
        precision=contents.precision,
        size_bytes=case.file.stat().st_size,
        pairs=contents.pairs,
        edges=None if planned is None else planned.edges,
        findings=findings,
        tensors=tensors,
        sqnr=outputs.sqnr,
        agreement=outputs.agreement,
        keras_agreement=outputs.keras_agreement,
        images=inputs.images,
        miss=miss,
    )


def _tensors(case: Case, inputs: Inputs) -> tuple[TensorError, ...]:
    batches = ((list(batch), None) for batch in islice(inputs.batches(), _COMPARED_BATCHES))
    return tensor_errors(case.model, case.file, batches, total=_COMPARED_BATCHES, normalize=inputs.normalize)


def _outputs(case: Case, inputs: Inputs) -> OutputErrors:
    with ExitStack() as stack:
        deployed = stack.enter_context(runtimes.open_runtime(case.file, "onnxruntime"))
        simulated = stack.enter_context(runtimes.KerasRuntime(case.model))
        known = case.baseline is not None and inputs.real
        baseline = stack.enter_context(runtimes.KerasRuntime(case.baseline)) if known else None
        return compare_outputs(deployed, simulated, inputs, baseline, graph.score_meaning(graph.trace(case.model)))


def _structural_miss(case: Case, findings: tuple[Finding, ...]) -> str | None:
    if not findings:
        return None
    return (
        f"The file isn't quantized as was planned, first at {findings[0].layer!r}: {findings[0].problem}. "
        f"Received: {str(case.file)!r} with {len(findings)} such places. Don't deploy it; export it again."
    )


def _output_miss(case: Case, inputs: Inputs, outputs: OutputErrors, *, half: bool) -> str | None:
    """End to end, float files are the same to many digits.

    Two runs of a quantized one drift apart (docs/architecture.md), and only its classes are held to something: not on
    random numbers, where they nearly tie, and not without the float model, by which the promise is made.
    """
    miss = None if case.quantized else score_miss(case.name, outputs.sqnr, half=half)
    held = inputs.real and outputs.agreement is not None and (outputs.keras_agreement is not None or not case.quantized)
    if miss is None and held and outputs.agreement is not None:
        return class_miss(case.name, outputs.agreement, inputs.images, outputs.keras_agreement)
    return miss

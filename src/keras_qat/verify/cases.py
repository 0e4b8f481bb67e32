"""One deployed file compared with what it was made from.

An ONNX file is compared with its placement, edge for edge, and with its Keras model, tensor by tensor and output by
output; a SavedModel with the outputs of its Keras model only, since its tensors can't be cut apart.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat import graph, layers, models, onnx, runtimes
from keras_qat.types import OutputTask, Placement
from keras_qat.verify import numbers, promises, results, structure
from keras_qat.verify.outputs import Inputs, OutputErrors, compare_outputs

_COMPARED_BATCHES = 4
"""Few images are enough to compare tensor by tensor, since each of their numbers counts."""


@dataclass(frozen=True, eq=False)
class Case:
    """One ONNX file and what it was made from.

    Args:
        name: what a message calls it.
        file: the ONNX file.
        model: the Keras model that it was exported from.
        placement: the plan that it was exported by; `None` if it is unknown, or nothing was to be quantized.
        baseline: the float Keras model, which what is promised of outputs depends on; `None` if it is unknown.
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

    If only its weights are, nothing is rounded at run time, and the file's outputs equal the model's to many digits.

    Example:
        >>> import keras
        >>> is_quantized(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        False
    """
    return any(isinstance(layer, layers.FakeQuantize) for layer in model.layers)


def check_file(case: Case, inputs: Inputs) -> results.FileCheck:
    """Check all that is promised of an ONNX file, in ONNX Runtime.

    Args:
        case: the file, and what it was made from.
        inputs: what both are fed.

    Returns:
        The result. A file whose pairs aren't those of the placement is not run.

    Raises:
        StorageError: If the file can't be read, or is that of another model.
        DataError: If the inputs don't fit the file.
    """
    content = onnx.read_onnx_file(case.file)
    half = content.precision == "fp16"
    planned = None if case.placement is None else structure.verify_file(case.file, case.placement, model=case.model)
    tensors: tuple[numbers.TensorError, ...] = ()
    outputs = OutputErrors(None, None, None)
    if planned is not None and planned.miss is not None:
        miss: str | None = f"{planned.miss} Don't deploy it; export it again."
    else:
        tensors = _tensors(case, inputs) if case.quantized else ()
        outputs = _outputs(case, inputs)
        miss = promises.tensor_miss(case.name, tensors, half=half) or _output_miss(case, inputs, outputs, half=half)
    return results.FileCheck(
        name=case.name,
        path=str(case.file),
        precision=content.precision,
        size_bytes=content.size_bytes,
        pairs=content.pairs,
        edges=None if planned is None else planned.edges,
        findings=() if planned is None else planned.findings,
        tensors=tensors,
        sqnr=outputs.sqnr,
        agreement=outputs.agreement,
        keras_agreement=outputs.keras_agreement,
        images=inputs.images,
        miss=miss,
        outputs=tuple(one.deployed for one in outputs.outputs),
    )


def check_saved_model(path: Path, model: Any, inputs: Inputs, *, trust: bool = False) -> results.FileCheck:
    """Check a SavedModel's outputs against those of its Keras model.

    Nothing is promised of a quantized one: its signed tensors saturate one step earlier (docs/saved_model.md), and two
    runs of a quantized network drift apart.

    Args:
        path: the folder.
        model: the Keras model that it was exported from.
        inputs: what both are fed.
        trust: whether code in the SavedModel may run, even if this tool did not write it.

    Raises:
        StorageError: If the folder can't be read.
        UserError: If the SavedModel is not trusted.
    """
    with ExitStack() as stack:
        deployed = stack.enter_context(runtimes.open_runtime(path, "tensorflow", trust=trust))
        simulated = stack.enter_context(runtimes.KerasRuntime(model))
        tasks = tasks_of(model, path)
        outputs = compare_outputs(_InOrder(deployed, simulated.inputs), simulated, inputs, None, tasks)
    held = not is_quantized(model)
    return results.FileCheck(
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
        miss=promises.score_miss(path.name, outputs.sqnr) if held else None,
        held=held,
        outputs=tuple(one.deployed for one in outputs.outputs),
    )


class _InOrder(runtimes.Runtime):
    """A SavedModel whose inputs come in the model's order instead of that of their names."""

    def __init__(self, runtime: runtimes.Runtime, order: Sequence[runtimes.TensorSpec]) -> None:
        names = [spec.name for spec in order]
        known = {spec.name: spec for spec in runtime.inputs}
        specs = tuple(known[name] for name in names) if set(names) == set(known) else runtime.inputs
        super().__init__(runtime.engine, runtime.device, specs, runtime.outputs)
        self._runtime = runtime
        self._order = [specs.index(spec) for spec in runtime.inputs]

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return self._runtime.run(*(inputs[i] for i in self._order))


def _tensors(case: Case, inputs: Inputs) -> tuple[numbers.TensorError, ...]:
    batches = ((list(batch), None) for batch in islice(inputs.batches(), _COMPARED_BATCHES))
    return numbers.tensor_errors(case.model, case.file, batches, total=_COMPARED_BATCHES, normalize=inputs.normalize)


def _outputs(case: Case, inputs: Inputs) -> OutputErrors:
    with ExitStack() as stack:
        deployed = stack.enter_context(runtimes.open_runtime(case.file, "onnxruntime"))
        simulated = stack.enter_context(runtimes.KerasRuntime(case.model))
        known = case.baseline is not None and inputs.real
        baseline = stack.enter_context(runtimes.KerasRuntime(case.baseline)) if known else None
        return compare_outputs(deployed, simulated, inputs, baseline, tasks_of(case.model, case.file))


def tasks_of(model: Any, file: Path) -> tuple[OutputTask, ...]:
    """What the outputs of a model say: as is written in or beside its file, else as its last layers show.

    Where nothing tells, one row of numbers is taken for scores of classes.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> [task.kind for task in tasks_of(model, Path("deploy/saved_model"))]
        ['classification']
    """
    facts = models.read_model_facts(file.absolute())
    if facts is not None and facts.tasks:
        return facts.tasks
    traced = graph.trace(model)
    meaning = graph.score_meaning(traced)
    if meaning is not None:
        return (OutputTask(traced.graph.outputs[0], "classification", meaning),)
    return graph.read_tasks(traced)


def _output_miss(case: Case, inputs: Inputs, outputs: OutputErrors, *, half: bool) -> str | None:
    """The first promise about the outputs that a file breaks.

    The outputs of a float file equal its model's to many digits. Those of a quantized one drift apart
    (docs/architecture.md), so that less is promised of them: nothing on random numbers, where the best classes nearly
    tie, and nothing without the float model, which tells how much quantization itself changes.
    """
    miss = None if case.quantized else promises.score_miss(case.name, outputs.sqnr, half=half)
    promised = inputs.real and (outputs.keras_agreement is not None or not case.quantized)
    if miss is None and promised and outputs.agreement is not None:
        return promises.class_miss(case.name, outputs.agreement, inputs.images, outputs.keras_agreement)
    return miss or (promises.output_miss(case.name, outputs.outputs) if inputs.real else None)

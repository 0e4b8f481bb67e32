"""One file held to its placement, edge for edge, and to its Keras model, tensor by tensor and class by class."""

from contextlib import ExitStack
from itertools import islice

from keras_qat.evaluation import TensorError, tensor_errors
from keras_qat.export import Finding, verify_file
from keras_qat.gates import class_miss, score_miss, tensor_miss
from keras_qat.graph import score_meaning, trace
from keras_qat.runtimes import KerasRuntime, open_runtime
from keras_qat.verify_files.case import Case
from keras_qat.verify_files.contents import read_contents
from keras_qat.verify_files.inputs import Inputs
from keras_qat.verify_files.outputs import OutputErrors, compare_outputs
from keras_qat.verify_files.record import FileCheck

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
        deployed = stack.enter_context(open_runtime(case.file, "onnxruntime"))
        simulated = stack.enter_context(KerasRuntime(case.model))
        known = case.baseline is not None and inputs.real
        baseline = stack.enter_context(KerasRuntime(case.baseline)) if known else None
        return compare_outputs(deployed, simulated, inputs, baseline, score_meaning(trace(case.model)))


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

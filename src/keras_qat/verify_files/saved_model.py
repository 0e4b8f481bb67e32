"""A SavedModel against its Keras model: outputs only, since its tensors can't be cut apart."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat.gates import score_miss
from keras_qat.graph import score_meaning, trace
from keras_qat.runtimes import KerasRuntime, Runtime, TensorSpec, open_runtime
from keras_qat.verify_files.case import is_quantized
from keras_qat.verify_files.inputs import Inputs
from keras_qat.verify_files.outputs import compare_outputs
from keras_qat.verify_files.record import FileCheck


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
        deployed = stack.enter_context(open_runtime(path, "tensorflow"))
        simulated = stack.enter_context(KerasRuntime(model))
        meaning = score_meaning(trace(model))
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


class _InOrder(Runtime):
    """A SavedModel that takes its inputs in the model's order, not in that of their names."""

    def __init__(self, runtime: Runtime, order: Sequence[TensorSpec]) -> None:
        names = [spec.name for spec in order]
        known = {spec.name: spec for spec in runtime.inputs}
        specs = tuple(known[name] for name in names) if set(names) == set(known) else runtime.inputs
        super().__init__(runtime.engine, runtime.device, specs, runtime.outputs)
        self._runtime = runtime
        self._order = [specs.index(spec) for spec in runtime.inputs]

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return self._runtime.run(*(inputs[i] for i in self._order))

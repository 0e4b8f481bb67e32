"""Which engine judges the file of a target: the one it is for, where that can run here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_qat.errors import UserError
from keras_qat.runtimes.build import build_engine
from keras_qat.runtimes.options import BatchRange
from keras_qat.runtimes.registry import find_engine
from keras_qat.runtimes.runtime import Runtime

JUDGES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino", "onnxruntime"),
    "tensorrt": ("tensorrt", "onnxruntime"),
}
"""{target: engines, the best judge first}. All files mean the same in ONNX Runtime, only slower."""

_ANY_TARGET = ("onnxruntime",)


@dataclass(frozen=True)
class Judge:
    """The engine that runs the deployed files.

    Args:
        engine: its name.
        passed_over: why better judges can't run here; empty if there are none.
    """

    engine: str
    passed_over: tuple[str, ...] = ()

    def open(self, path: Path, *, max_batch: int) -> Runtime:
        """Open an ONNX file; an engine that needs a file of its own gets it built beside the ONNX file.

        Args:
            path: the ONNX file.
            max_batch: the largest batch that will be run.

        Raises:
            UserError: as `open_runtime` and `build_engine`.
        """
        engine = find_engine(self.engine)
        if path.suffix not in engine.suffixes:
            path = build_engine(path, engine=self.engine, batch=BatchRange(max=max_batch)).path
        return engine.open(path)

    def describe(self, runtime: Runtime) -> str:
        """Which engine it was, and why none better, for the report."""
        reasons = "".join(f", not {reason}" for reason in self.passed_over)
        return f"{runtime.engine} ({runtime.device}){reasons}"


def choose_judge(target: str) -> Judge:
    """The best judge of a target's files that can run on this machine, and computes them right there.

    Args:
        target: its name; one that no table names is judged by ONNX Runtime.

    Raises:
        UserError: none can run here.

    Example:
        >>> choose_judge("onnxruntime")
        Judge(engine='onnxruntime', passed_over=())
    """
    passed_over: list[str] = []
    candidates = JUDGES.get(target, _ANY_TARGET)
    for name in candidates:
        engine = find_engine(name)
        reason = engine.why_not() or engine.why_inexact()
        if reason is None:
            return Judge(name, tuple(passed_over))
        passed_over.append(f"{engine.title}: {reason}")
    raise UserError(
        f"No engine here can judge files for {target}. Received: {'; '.join(passed_over)}. "
        f"Install it: pip install 'keras-qat[{candidates[0]}]'"
    )

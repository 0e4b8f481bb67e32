"""Which engine judges the files of a target: the one that they are for, if it can run here."""

from dataclasses import dataclass
from pathlib import Path

from keras_qat.errors import UserError
from keras_qat.runtimes.registry import ADAPTERS, build_engine
from keras_qat.runtimes.runtime import BatchRange, Runtime
from keras_qat.targets import find_engine, judges_of


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
        """Open an ONNX file. If the engine needs a file of its own, that is built beside the ONNX file.

        Args:
            path: the ONNX file.
            max_batch: the largest batch that will be run.

        Raises:
            UserError: As from `open_runtime` and `build_engine`.
        """
        if path.suffix not in find_engine(self.engine).suffixes:
            path = build_engine(path, engine=self.engine, batch=BatchRange(max=max_batch)).path
        return ADAPTERS[self.engine].open(path)

    def describe(self, runtime: Runtime) -> str:
        """Which engine judged, and why no better one did, for the report."""
        reasons = "".join(f", not {reason}" for reason in self.passed_over)
        return f"{runtime.engine} ({runtime.device}){reasons}"


def choose_judge(target: str) -> Judge:
    """The best judge of a target's files that can run on this machine, and computes them exactly here.

    Args:
        target: its name; one that is not registered is judged by ONNX Runtime.

    Raises:
        UserError: If no judge can run here.

    Example:
        >>> choose_judge("onnxruntime")
        Judge(engine='onnxruntime', passed_over=())
    """
    passed_over: list[str] = []
    candidates = judges_of(target)
    for name in candidates:
        adapter = ADAPTERS[name]
        reason = adapter.why_not() or adapter.why_inexact()
        if reason is None:
            return Judge(name, tuple(passed_over))
        passed_over.append(f"{adapter.engine.title}: {reason}")
    raise UserError(
        f"No engine here can judge files for {target}. Received: {'; '.join(passed_over)}. "
        f"Install it: pip install {find_engine(candidates[0]).install}"
    )

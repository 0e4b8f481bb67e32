"""The result of evaluating one file, or of comparing two, and the runtime that measures their speed."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_qat.evaluation.comparison import Comparison, Proportion
from keras_qat.evaluation.output_scores import OutputScores
from keras_qat.runtimes import Runtime


@dataclass(frozen=True)
class ScoredFile:
    """One file on all images.

    Args:
        name: The name of the file in the table.
        path: The path as it was given.
        engine: The engine and its version.
        device: Where the file ran.
        preprocessing: The preprocessing of the images, from `Preprocessing.to_dict()`; `None` for arrays as they are.
        batch_size: The number of images in a run.
        top1: The images whose label is the best class; `None` for images without labels.
        top_k: The images whose label is among the k best classes; `None` for images without labels.
        images_per_second: The median over the batches of the speed of the engine alone.
        outputs: Each output by its task; empty for a classifier with one output.
    """

    name: str
    path: str
    engine: str
    device: str
    preprocessing: dict[str, Any] | None
    batch_size: int
    top1: Proportion | None
    top_k: Proportion | None
    images_per_second: float
    outputs: tuple[OutputScores, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types; of other models than a classifier those of their outputs."""
        value = {**vars(self), "top1": _as_dict(self.top1), "top_k": _as_dict(self.top_k)}
        if not self.outputs:
            return {name: it for name, it in value.items() if name != "outputs"}
        outputs = [scores.to_dict() for scores in self.outputs]
        return {**{name: it for name, it in value.items() if name not in _OF_A_CLASSIFIER}, "outputs": outputs}


_OF_A_CLASSIFIER = frozenset({"top1", "top_k"})


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating one file, or of comparing two.

    Args:
        data: The name of the data set.
        images: The number of images evaluated.
        skipped: The number of broken records and image files that were left out.
        k: The k of top-k.
        files: The file, and the file it is compared with.
        comparison: The comparison of the two; `None` for one file, and for images without labels.
        agreement: The images for which both have the same best class; `None` for one file.
    """

    data: str
    images: int
    skipped: int
    k: int
    files: tuple[ScoredFile, ...]
    comparison: Comparison | None = None
    agreement: Proportion | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON types."""
        return {
            **vars(self),
            "files": [file.to_dict() for file in self.files],
            "comparison": _as_dict(self.comparison),
            "agreement": _as_dict(self.agreement),
        }


def _as_dict(figures: Proportion | Comparison | None) -> dict[str, Any] | None:
    return None if figures is None else figures.to_dict()


class TimedRuntime(Runtime):
    """Runs another runtime and times its runs, without the time that reading the images takes.

    Args:
        runtime: The model in an engine. The caller closes it.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.engine, runtime.device, runtime.inputs, runtime.outputs)
        self._runtime = runtime
        self._rates: list[float] = []

    @property
    def images_per_second(self) -> float | None:
        """The median over the runs, so that the first run, which prepares, hardly counts; `None` before any run."""
        return float(np.median(self._rates)) if self._rates else None

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        start = time.perf_counter()
        outputs = self._runtime.run(*inputs)
        # The clock may not have advanced during the run of a tiny model.
        self._rates.append(len(inputs[0]) / max(time.perf_counter() - start, 1e-9))
        return outputs

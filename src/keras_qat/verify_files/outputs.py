"""Outputs of a file against those of the model that it was exported from, on the same numbers."""

from dataclasses import dataclass, field

import numpy as np

from keras_qat.evaluation.inputs import convert
from keras_qat.runtimes import Runtime
from keras_qat.scores import best_class
from keras_qat.types import ScoreMeaning
from keras_qat.verify_files.inputs import Batch, Inputs

_EQUAL_DB = 200.0
"""The SQNR of equal outputs."""


@dataclass(frozen=True)
class OutputErrors:
    """How far the outputs are apart.

    Args:
        sqnr: 10 log₁₀ (Σ r² / Σ (r - x)²) over all outputs in dB, at most 200, where r is Keras's and x the file's;
            200 where both are equal, so where both are 0 throughout; `None` where they aren't finite, or r is 0
            throughout and x isn't.
        agreement: share of images with the same best class, 0 to 1; `None` for a model that isn't one classifier.
        keras_agreement: likewise, of the Keras model with the float one; `None` without one.
    """

    sqnr: float | None
    agreement: float | None
    keras_agreement: float | None


@dataclass
class _Sums:
    signal: float = 0.0
    noise: float = 0.0
    same: list[np.ndarray] = field(default_factory=list)
    same_in_keras: list[np.ndarray] = field(default_factory=list)

    def add(self, deployed: Batch, simulated: Batch) -> None:
        for x, r in zip(deployed, simulated, strict=True):
            wide = r.astype(np.float64)
            self.signal += float(np.sum(wide**2))
            self.noise += float(np.sum((wide - x.astype(np.float64)) ** 2))


def compare_outputs(
    deployed: Runtime,
    simulated: Runtime,
    inputs: Inputs,
    baseline: Runtime | None,
    meaning: ScoreMeaning | None = None,
) -> OutputErrors:
    """Run all three on all inputs.

    Args:
        deployed: the file in an engine.
        simulated: its Keras model.
        inputs: what they are fed.
        baseline: the float Keras model, if it is known.
        meaning: of the scores; `None` for models that aren't classifiers, whose classes aren't compared.

    Raises:
        DataError: the inputs don't fit.

    Example:
        >>> import keras
        >>> from keras_qat.runtimes import KerasRuntime
        >>> runtime = KerasRuntime(keras.Sequential([keras.Input((3,)), keras.layers.Softmax()]))
        >>> inputs = Inputs("unit vectors", 3, real=False, batches=lambda: iter([(np.eye(3, dtype="float32"),)]))
        >>> compare_outputs(runtime, runtime, inputs, None, "classes")
        OutputErrors(sqnr=200.0, agreement=1.0, keras_agreement=None)
    """
    sums = _Sums()
    for batch in inputs.batches():
        normalized = inputs.for_keras(batch)
        fed = (convert(x, spec.dtype, spec.name) for x, spec in zip(batch, deployed.inputs, strict=True))
        x, r = deployed.run(*fed), simulated.run(*normalized)
        sums.add(x, r)
        if meaning is not None:
            best = best_class(r[0], meaning)
            sums.same.append(best_class(x[0], meaning) == best)
            if baseline is not None:
                sums.same_in_keras.append(best_class(baseline.run(*normalized)[0], meaning) == best)
    return OutputErrors(_decibels(sums.signal, sums.noise), _share(sums.same), _share(sums.same_in_keras))


def _decibels(signal: float, noise: float) -> float | None:
    if noise == 0:
        return _EQUAL_DB
    if not (np.isfinite(noise) and signal > 0):
        return None
    return min(10 * float(np.log10(signal / noise)), _EQUAL_DB)


def _share(same: list[np.ndarray]) -> float | None:
    return float(np.mean(np.concatenate(same))) if same else None

"""Do a file's outputs equal those of its Keras model? What both are fed, and how far their outputs are apart."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from keras_qat import data, evaluation, graph, models, runtimes, transform
from keras_qat.layers import FakeQuantize
from keras_qat.types import ScoreMeaning

Batch = tuple[np.ndarray, ...]
"""One array for each input."""

RANDOM_NUMBERS = "random numbers"

_BATCH = 8
_RANDOM_IMAGES = 32

_DEVIATIONS = 3
"""A calibrated range is about this many standard deviations of the tensor's values."""

_EQUAL_DB = 200.0
"""The SQNR of equal outputs, and the largest that is reported."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The same arrays for a file and for its Keras model.

    Args:
        name: what a table calls them.
        images: number of images, or of rows of random numbers.
        real: whether they are images, so that classes mean something.
        batches: starts a new pass over what the file reads.
        normalize: computes what the Keras model is fed instead of an array; `None` if it is fed the same.
    """

    name: str
    images: int
    real: bool
    batches: Callable[[], Iterator[Batch]]
    normalize: Callable[[Any], Any] | None = None

    def for_keras(self, batch: Batch) -> Batch:
        """The batch as the Keras model reads it."""
        return batch if self.normalize is None else tuple(np.asarray(self.normalize(x)) for x in batch)


def images_of(images: data.ImageSet, facts: models.ModelFacts, count: int, seed: int) -> Inputs:
    """Some images of a set, as the file reads them.

    Args:
        images: the set, with any preprocessing.
        facts: what the file expects. With embedded preprocessing the file is fed whole pixels, and the Keras model
            their normalization.
        count: number of images; all, if there are fewer.
        seed: seed of the choice.
    """
    chosen = replace(images.take(count, seed), preprocessing=facts.reads)
    return Inputs(
        images.name,
        len(chosen),
        real=True,
        batches=lambda: ((x,) for x, _ in chosen.arrays(_BATCH)),
        normalize=_embedded_normalization(facts),
    )


def random_numbers(
    model: Any, specs: Sequence[runtimes.TensorSpec], facts: models.ModelFacts | None, seed: int
) -> Inputs:
    """Random numbers in the range that the model reads.

    They are normalized random pixels if it is known how images are normalized. Otherwise they are normally distributed,
    and spread over the calibrated range of an input that has one.

    Args:
        model: the Keras model.
        specs: its inputs.
        facts: what the file expects; `None` if that is unknown.
        seed: the same seed gives the same numbers.

    Raises:
        UserError: If a size other than the batch is dynamic.
    """
    batch = evaluation.fixed_batch(specs) or _BATCH
    steps = -(-_RANDOM_IMAGES // batch)
    pixels = facts is not None and len(specs) == 1 and len(specs[0].shape) == 4  # noqa: PLR2004
    drawn = [replace(spec, dtype=np.dtype("uint8")) if pixels else spec for spec in specs]
    scales = _spread(model)

    def numbers() -> Iterator[Batch]:
        for step in range(steps):
            yield tuple(
                x * s if x.dtype.kind == "f" else x
                for x, s in zip(evaluation.random_inputs(drawn, batch, seed=seed + step), scales, strict=True)
            )

    def normalized() -> Iterator[Batch]:
        for (x,) in numbers():
            yield (np.asarray(facts.preprocessing.normalize(x)),) if facts is not None else (x,)

    next(numbers())  # Raises the error about dynamic sizes now, before anything is written.
    batches = normalized if pixels and facts is not None and not facts.embedded else numbers
    normalize = _embedded_normalization(facts) if pixels else None
    return Inputs(RANDOM_NUMBERS, steps * batch, real=False, batches=batches, normalize=normalize)


def _embedded_normalization(facts: models.ModelFacts | None) -> Callable[[Any], Any] | None:
    return facts.preprocessing.normalize if facts is not None and facts.embedded else None


def _spread(model: Any) -> list[np.float32]:
    """The factor for normally distributed numbers, for each input."""
    layers = {layer.name: layer for layer in model.layers if isinstance(layer, FakeQuantize)}
    inputs = (layers.get(transform.fake_quantize_name(name)) for name in graph.input_names(model))
    return [np.float32(1) if layer is None else np.float32(np.asarray(layer.amax) / _DEVIATIONS) for layer in inputs]


@dataclass(frozen=True)
class OutputErrors:
    """How far the outputs are apart.

    Args:
        sqnr: 10 log₁₀ (Σ r² / Σ (r - x)²) over all outputs in dB, at most 200, where r is Keras's and x the file's;
            200 if both are equal, as when both are 0 throughout; `None` if they aren't finite, or r is 0 throughout and
            x isn't.
        agreement: share of images with the same best class, 0 to 1; `None` for a model that is not a classifier.
        keras_agreement: the same share between the Keras model and the float one; `None` without a float one.
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
    deployed: runtimes.Runtime,
    simulated: runtimes.Runtime,
    inputs: Inputs,
    baseline: runtimes.Runtime | None,
    meaning: ScoreMeaning | None = None,
) -> OutputErrors:
    """Run a file and its Keras model on all inputs.

    Args:
        deployed: the file in an engine.
        simulated: its Keras model.
        inputs: what they are fed.
        baseline: the float Keras model, if it is known.
        meaning: what the scores mean; `None` for models that aren't classifiers, whose classes aren't compared.

    Raises:
        DataError: If the inputs don't fit.

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
        fed = (evaluation.convert(x, spec.dtype, spec.name) for x, spec in zip(batch, deployed.inputs, strict=True))
        x, r = deployed.run(*fed), simulated.run(*normalized)
        sums.add(x, r)
        if meaning is not None:
            best = graph.best_class(r[0], meaning)
            sums.same.append(graph.best_class(x[0], meaning) == best)
            if baseline is not None:
                sums.same_in_keras.append(graph.best_class(baseline.run(*normalized)[0], meaning) == best)
    return OutputErrors(_decibels(sums.signal, sums.noise), _share(sums.same), _share(sums.same_in_keras))


def _decibels(signal: float, noise: float) -> float | None:
    if noise == 0:
        return _EQUAL_DB
    if not (np.isfinite(noise) and signal > 0):
        return None
    return min(10 * float(np.log10(signal / noise)), _EQUAL_DB)


def _share(same: list[np.ndarray]) -> float | None:
    return float(np.mean(np.concatenate(same))) if same else None

"""What a file and its Keras model are both fed: images, or random numbers of the size that the model was trained on.

Outputs of a file against those of the model that it was exported from, on the same numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from keras_qat.data import ImageSet
from keras_qat.evaluation import convert, fixed_batch, random_inputs
from keras_qat.graph import best_class, input_names
from keras_qat.layers import FakeQuantize
from keras_qat.models import ModelFacts
from keras_qat.runtimes import Runtime, TensorSpec
from keras_qat.transform import fake_quantize_name
from keras_qat.types import ScoreMeaning

Batch = tuple[np.ndarray, ...]

RANDOM_NUMBERS = "random numbers"

_BATCH = 8
_RANDOM_IMAGES = 32
_DEVIATIONS = 3
"""A calibrated range is about that many standard deviations of what was seen."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The same numbers for a file and for its Keras model.

    Args:
        name: what a table calls them.
        images: how many.
        real: they are images, so classes mean something.
        batches: a new pass over what the file reads, one array for each input.
        normalize: what the Keras model is fed in the place of an array; `None` for the same.
    """

    name: str
    images: int
    real: bool
    batches: Callable[[], Iterator[Batch]]
    normalize: Callable[[Any], Any] | None = None

    def for_keras(self, batch: Batch) -> Batch:
        """The batch as the Keras model reads it."""
        return batch if self.normalize is None else tuple(np.asarray(self.normalize(x)) for x in batch)


def images_of(images: ImageSet, facts: ModelFacts, count: int, seed: int) -> Inputs:
    """Some images of a set, as the file reads them.

    Args:
        images: with any preprocessing.
        facts: of the file; with embedded preprocessing it is fed whole pixels, and the Keras model their normalization.
        count: how many; all, if there are fewer.
        seed: of the choice.
    """
    chosen = replace(images.take(count, seed), preprocessing=facts.reads)
    normalize = facts.preprocessing.normalize if facts.embedded else None
    return Inputs(
        images.name,
        len(chosen),
        real=True,
        batches=lambda: ((x,) for x, _ in chosen.arrays(_BATCH)),
        normalize=normalize,
    )


def random_numbers(model: Any, specs: Sequence[TensorSpec], facts: ModelFacts | None, seed: int) -> Inputs:
    """Random numbers such as the model reads.

    Where it is known how images are normalized, they are normalized random pixels; else they are normal, spread over
    the calibrated range of an input that has one.

    Args:
        model: the Keras model.
        specs: what it reads.
        facts: of the file; `None` where nobody wrote them down.
        seed: the same seed gives the same numbers.

    Raises:
        UserError: a size other than the batch is dynamic.
    """
    batch = fixed_batch(specs) or _BATCH
    steps = -(-_RANDOM_IMAGES // batch)
    pixels = facts is not None and len(specs) == 1 and len(specs[0].shape) == 4  # noqa: PLR2004
    drawn = [replace(spec, dtype=np.dtype("uint8")) if pixels else spec for spec in specs]
    scales = _spread(model)

    def numbers() -> Iterator[Batch]:
        for step in range(steps):
            yield tuple(
                x * s if x.dtype.kind == "f" else x
                for x, s in zip(random_inputs(drawn, batch, seed=seed + step), scales, strict=True)
            )

    def normalized() -> Iterator[Batch]:
        for (x,) in numbers():
            yield (np.asarray(facts.preprocessing.normalize(x)),) if facts is not None else (x,)

    next(numbers())  # Refuses dynamic sizes now, before anything is written.
    found = Inputs(RANDOM_NUMBERS, steps * batch, real=False, batches=numbers)
    if pixels and facts is not None:
        embedded = facts.preprocessing.normalize if facts.embedded else None
        return replace(found, batches=numbers if facts.embedded else normalized, normalize=embedded)
    return found


def _spread(model: Any) -> list[np.float32]:
    """What to multiply normal numbers by, for each input."""
    ranges = {layer.name: layer for layer in model.layers if isinstance(layer, FakeQuantize)}
    found = (ranges.get(fake_quantize_name(name)) for name in input_names(model))
    return [np.float32(1) if layer is None else np.float32(np.asarray(layer.amax) / _DEVIATIONS) for layer in found]


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

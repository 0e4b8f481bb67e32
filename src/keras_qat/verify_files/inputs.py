"""What a file and its Keras model are both fed: images, or random numbers of the size that the model was trained on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_qat.data import ImageSet
from keras_qat.evaluation.inputs import fixed_batch
from keras_qat.evaluation.random_inputs import random_inputs
from keras_qat.graph.input_names import input_names
from keras_qat.layers import FakeQuantize
from keras_qat.model_facts import ModelFacts
from keras_qat.runtimes import TensorSpec
from keras_qat.transform import fake_quantize_name

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

"""Do a file's outputs equal those of its Keras model? What both are fed, and how far their outputs are apart."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_qat import data, evaluation, graph, models, runtimes, transform
from keras_qat.layers import FakeQuantize
from keras_qat.types import OutputTask, is_classifier
from keras_qat.verify import promises

Batch = tuple[np.ndarray, ...]
"""One array for each input."""

RANDOM_NUMBERS = "random numbers"

_BATCH = 8
_RANDOM_IMAGES = 32

_DEVIATIONS = 3
"""A calibrated range is about this many standard deviations of the tensor's values."""


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


def images_of(images: data.DataSet, facts: models.ModelFacts, count: int, seed: int) -> Inputs:
    """Some images or other samples of a set, as the file reads them.

    Args:
        images: the set, with any preprocessing.
        facts: what the file expects. With embedded preprocessing the file is fed whole pixels, and the Keras model
            their normalization. Without preprocessing both are fed the set's arrays as they are.
        count: number of images; all, if there are fewer.
        seed: seed of the choice.
    """
    chosen: Any = images.take(count, seed)
    if facts.reads is not None:
        chosen = replace(chosen, preprocessing=facts.reads)
    return Inputs(
        images.name,
        len(chosen),
        real=True,
        batches=lambda: (evaluation.arrays_of_inputs(x) for x, _ in chosen.arrays(_BATCH)),
        normalize=facts.normalize,
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
    prepared = None if facts is None else facts.preprocessing
    pixels = prepared is not None and len(specs) == 1 and len(specs[0].shape) == 4  # noqa: PLR2004
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
            yield (np.asarray(prepared.normalize(x)),) if prepared is not None else (x,)

    next(numbers())  # Raises the error about dynamic sizes now, before anything is written.
    batches = normalized if pixels and facts is not None and not facts.embedded else numbers
    normalize = facts.normalize if pixels and facts is not None else None
    return Inputs(RANDOM_NUMBERS, steps * batch, real=False, batches=batches, normalize=normalize)


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
        agreement: share of images with the same best class, 0 to 1; `None` for a model that is not a classifier with
            one output.
        keras_agreement: the same share between the Keras model and the float one; `None` without a float one.
        outputs: each output by its task; empty for a classifier with one output, or if no tasks are known.
    """

    sqnr: float | None
    agreement: float | None
    keras_agreement: float | None
    outputs: tuple[promises.OutputComparison, ...] = ()


_FILE, _KERAS, _FLOAT = "file", "Keras", "float"


def compare_outputs(
    deployed: runtimes.Runtime,
    simulated: runtimes.Runtime,
    inputs: Inputs,
    baseline: runtimes.Runtime | None,
    tasks: Sequence[OutputTask] = (),
) -> OutputErrors:
    """Run a file and its Keras model on all inputs.

    Args:
        deployed: the file in an engine.
        simulated: its Keras model.
        inputs: what they are fed.
        baseline: the float Keras model, if it is known.
        tasks: what each output says, in the order of the outputs; none for outputs of unknown meaning, of which only
            the numbers are compared.

    Raises:
        DataError: If the inputs don't fit.

    Example:
        >>> import keras
        >>> from keras_qat.runtimes import KerasRuntime
        >>> runtime = KerasRuntime(keras.Sequential([keras.Input((3,)), keras.layers.Softmax()]))
        >>> inputs = Inputs("unit vectors", 3, real=False, batches=lambda: iter([(np.eye(3, dtype="float32"),)]))
        >>> compare_outputs(runtime, runtime, inputs, None, [OutputTask("scores", "classification", "classes")])
        OutputErrors(sqnr=200.0, agreement=1.0, keras_agreement=None, outputs=())
    """
    pairs = _pairs(known=baseline is not None)
    judges = [evaluation.JUDGES[task.kind](task, pairs) for task in tasks]
    signal = noise = 0.0
    for batch in inputs.batches():
        normalized = inputs.for_keras(batch)
        outputs = {_FILE: evaluation.run_batch(deployed, batch), _KERAS: evaluation.run_batch(simulated, normalized)}
        if baseline is not None and judges:
            outputs[_FLOAT] = evaluation.run_batch(baseline, normalized)
        for x, r in zip(outputs[_FILE], outputs[_KERAS], strict=True):
            wide = r.astype(np.float64)
            signal += float(np.sum(wide**2))
            noise += float(np.sum((wide - x.astype(np.float64)) ** 2))
        for i, judge in enumerate(judges):
            judge.add({name: judge.read(made[i]) for name, made in outputs.items()}, None)
    compared = tuple(promises.OutputComparison(*(judge.scores(*pair) for pair in pairs)) for judge in judges)
    sqnr = evaluation.decibels(signal, noise)
    if not is_classifier(tasks):
        return OutputErrors(sqnr, None, None, compared)
    ((one,),) = [compared]
    kept = None if one.keras_and_float is None else one.keras_and_float.value("agreement")
    return OutputErrors(sqnr, one.deployed.value("agreement"), kept)


def _pairs(*, known: bool) -> list[tuple[str, str | None]]:
    """What is compared, in the order of the fields of `OutputComparison`."""
    with_float = [(_FILE, _FLOAT), (_KERAS, _FLOAT)] if known else []
    return [(_FILE, _KERAS), *with_float]

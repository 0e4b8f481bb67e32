"""Float model + images → the range of every tensor that will be quantized."""

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Any

import numpy as np

from keras_qat.calibration.histogram import Histogram, merge
from keras_qat.calibration.observers import find_observer
from keras_qat.calibration.probe import build_probe
from keras_qat.errors import DataError, UnsupportedModelError
from keras_qat.graph import trace
from keras_qat.progress import track
from keras_qat.types import Placement, TensorRange


def calibrate(
    model: Any,
    placement: Placement,
    batches: Iterable[Any],
    *,
    method: str = "mse",
    total: int | None = None,
) -> Mapping[str, TensorRange]:
    """Run the float model over the images and choose the range of each observed tensor.

    One pass, streaming: memory doesn't grow with the number of images, and their order doesn't matter.

    Args:
        model: the float model. It is not changed.
        placement: from `plan`.
        batches: batches of images, or of (images, labels); arrays of shape (batch, height, width, channels). A model
            with several inputs takes (list of arrays, labels).
        method: an observer: `"minmax"`, `"ema"`, `"percentile"`, `"entropy"`, `"mse"` or `"auto"`.
        total: number of batches, for the progress bar.

    Returns:
        {tensor name: its range}.

    Raises:
        DataError: there are no images, or they don't fit the model's input.
        UnsupportedModelError: an activation is NaN or infinite; the first such tensor is named.
        UserError: the method is unknown.
    """
    observer = find_observer(method)
    tensors = tuple(dict.fromkeys(name for names in placement.sources.values() for name in names))
    probe = build_probe(trace(model), tensors, counts=observer.counts)
    states = {name: observer.init() for name in placement.sources}
    images = 0
    for x in input_batches(batches, model, "calibrating", total):
        images += len(x[0])
        seen = {name: _read(name, *outputs) for name, outputs in probe.predict_on_batch(x).items()}
        for name, sources in placement.sources.items():
            states[name] = observer.update(states[name], reduce(merge, (seen[source] for source in sources)))
    if images == 0:
        raise DataError("There is nothing to calibrate with. Received: 0 images. Give at least one batch.")
    specs = placement.specs
    choices = {name: observer.finalize(state, specs[name]) for name, state in states.items()}
    return {name: TensorRange(choice.amax, choice.method, images) for name, choice in choices.items()}


def _read(tensor: str, counts: Any, largest: Any) -> Histogram:
    """What the probe saw of a tensor in one batch.

    Raises:
        UnsupportedModelError: a number is not finite.
    """
    amax = float(np.asarray(largest, np.int32).view(np.float32))
    if not np.isfinite(amax):
        raise UnsupportedModelError(
            f"The tensor {tensor!r} is not finite on the calibration images. Received: a largest magnitude of "
            f"{amax}. Check the weights before this layer and the preprocessing of the images."
        )
    return Histogram(np.asarray(counts, np.int64), amax)


def input_batches(
    batches: Iterable[Any], model: Any, description: str, total: int | None
) -> Iterator[list[np.ndarray]]:
    """The arrays of each batch that isn't empty, under a progress bar.

    Raises:
        DataError: a batch doesn't fit the model.
    """
    for batch in track(batches, description, total):
        x = _inputs_of(batch)
        _check_shapes(x, model)
        if len(x[0]):
            yield x


def _inputs_of(batch: Any) -> list[np.ndarray]:
    """The arrays of a batch, without the labels."""
    x = batch[0] if isinstance(batch, tuple | list) else batch
    return [np.asarray(one) for one in x] if isinstance(x, tuple | list) else [np.asarray(x)]


def _check_shapes(x: list[np.ndarray], model: Any) -> None:
    """Refuse a batch that the model doesn't take.

    Raises:
        DataError: the number of arrays or a shape is wrong.
    """
    expected, received = [tuple(i.shape) for i in model.inputs], [a.shape for a in x]
    if len(expected) != len(received) or not all(map(_fits, expected, received)):
        one = len(expected) == len(received) == 1
        raise DataError(
            f"The calibration images don't fit the model {model.name!r}. Received: a batch of shape "
            f"{received[0] if one else received}, where the model takes {expected[0] if one else expected}. "
            "Resize the images as for training."
        )


def _fits(expected: tuple[int | None, ...], received: tuple[int, ...]) -> bool:
    same_rank = len(expected) == len(received)
    return same_rank and all(e in (None, g) for e, g in zip(expected, received, strict=True))

"""Float model + images → the range of every tensor that will be quantized."""

from functools import reduce
from typing import Any

import numpy as np

from keras_qat.calibration.histogram import Histogram, merge
from keras_qat.calibration.inputs import read_batches
from keras_qat.calibration.observers import find_observer
from keras_qat.calibration.probe import build_probe
from keras_qat.calibration.ranges import Ranges
from keras_qat.calibration.summary import summarize
from keras_qat.errors import DataError, UnsupportedModelError
from keras_qat.graph import trace
from keras_qat.types import Placement, TensorRange


def calibrate(
    model: Any,
    placement: Placement,
    batches: Any,
    *,
    method: str = "mse",
    images: int | None = None,
    total: int | None = None,
) -> Ranges:
    """Run the float model over the images and choose the range of each observed tensor.

    One pass, streaming: memory does not grow with the number of images, and their order matters to `"ema"` alone.

    Args:
        model: the float model. It is not changed.
        placement: from `plan`.
        batches: an array of images, of shape (batch, height, width, channels) for channels last; an iterable of
            batches, with labels or without; a `tf.data.Dataset`, a `keras.utils.PyDataset` or a DataLoader: all that
            `read_batches` takes. A model with several inputs takes lists or dictionaries of arrays.
        method: an observer: `"minmax"`, `"ema"`, `"percentile"`, `"entropy"`, `"mse"` or `"auto"`.
        images: take exactly so many images; all if not given. With fewer there is a warning.
        total: number of batches, for the progress bar, where the data can't say.

    Returns:
        {tensor name: its range}, a mapping that can be saved and compared.

    Raises:
        DataError: there are no images, they don't fit the model's input or aren't finite, or they never end.
        UnsupportedModelError: an activation is NaN or infinite; the first such tensor is named.
        UserError: the method is unknown.
    """
    observer = find_observer(method)
    tensors = tuple(dict.fromkeys(name for names in placement.sources.values() for name in names))
    probe = build_probe(trace(model), tensors, counts=observer.counts)
    states = {name: observer.init() for name in placement.sources}
    count = 0
    for x in read_batches(batches, model, images=images, description="calibrating", total=total):
        count += len(x[0])
        seen = {name: _read(name, *outputs) for name, outputs in probe.predict_on_batch(x).items()}
        for name, sources in placement.sources.items():
            states[name] = observer.update(states[name], reduce(merge, (seen[source] for source in sources)))
    if count == 0:
        raise DataError("There is nothing to calibrate with. Received: 0 images. Give at least one batch.")
    specs = placement.specs
    choices = {name: observer.finalize(state, specs[name]) for name, state in states.items()}
    summaries = {name: summarize(state) if observer.counts else None for name, state in states.items()}
    return Ranges({name: TensorRange(*choice, count, summaries[name]) for name, choice in choices.items()})


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

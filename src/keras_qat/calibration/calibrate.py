"""Float model + images → the range of every tensor that will be quantized."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from keras_qat.calibration.histogram import Histogram, merge
from keras_qat.calibration.inputs import read_batches
from keras_qat.calibration.observers import Observer, find_observer
from keras_qat.calibration.probe import build_probe, largest_magnitude
from keras_qat.calibration.ranges import Ranges
from keras_qat.calibration.summary import bars, summarize
from keras_qat.errors import DataError, UnsupportedModelError
from keras_qat.graph import trace
from keras_qat.types import Placement, QuantSpec, TensorRange


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
    return calibrate_by_all(model, placement, batches, (method,), images=images, total=total)[method]


def calibrate_by_all(
    model: Any,
    placement: Placement,
    batches: Any,
    methods: Sequence[str],
    *,
    images: int | None = None,
    total: int | None = None,
) -> Mapping[str, Ranges]:
    """The ranges by several methods, in one pass; arguments and errors are those of `calibrate`.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_qat import plan
        >>> x = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))
        >>> data = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
        >>> found = calibrate_by_all(model, plan(trace(model).graph, "tensorrt"), data, ("minmax", "mse"))
        >>> found["minmax"]["image"].amax > found["mse"]["image"].amax
        True
    """
    observers = {method: find_observer(method) for method in methods}
    tensors = tuple(dict.fromkeys(name for names in placement.sources.values() for name in names))
    if not tensors:
        return dict.fromkeys(methods, Ranges())
    probe = build_probe(trace(model), tensors, counts=any(o.counts for o in observers.values()))
    states = {(method, name): o.init() for method, o in observers.items() for name in placement.sources}
    count = 0
    for x in read_batches(batches, model, images=images, description="calibrating", total=total):
        count += len(x[0])
        seen = probe.predict_on_batch(x)
        for name, sources in placement.sources.items():
            histogram = reduce(merge, (_read(source, *seen[source]) for source in sources))
            for method, observer in observers.items():
                states[method, name] = observer.update(states[method, name], histogram)
    if count == 0:
        raise DataError("There is nothing to calibrate with. Received: 0 images. Give at least one batch.")
    specs = placement.specs
    return {
        method: Ranges({name: _range(o, states[method, name], specs[name], count) for name in placement.sources})
        for method, o in observers.items()
    }


def _range(observer: Observer, state: Any, spec: QuantSpec, images: int) -> TensorRange:
    seen = (summarize(state), bars(state)) if observer.counts else ()
    return TensorRange(*observer.finalize(state, spec), images, *seen)


def _read(tensor: str, counts: Any, signed: Any, unsigned: Any) -> Histogram:
    """What the probe saw of a tensor in one batch.

    Raises:
        UnsupportedModelError: a number is not finite.
    """
    amax = largest_magnitude(signed, unsigned)
    if not np.isfinite(amax):
        raise UnsupportedModelError(
            f"The tensor {tensor!r} is not finite on the calibration images. Received: a largest magnitude of "
            f"{amax}. Check the weights before this layer and the preprocessing of the images."
        )
    return Histogram(np.asarray(counts, np.int64), amax)

"""A model that observes its own activations, inside the compiled forward pass.

The largest magnitude is that of all numbers. Counting them takes longer than some convolutions, so of large tensors
some columns of pixels are counted: always the same, so that the counts still depend on the images alone. Only counts
leave the device, a quarter of a megabyte a tensor and batch, whatever the batch and the image size.

Float model + images → the range of every tensor that will be quantized.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.calibration.histogram import BINS, DROPPED_BITS, Histogram, bars, merge, summarize
from keras_qat.calibration.intake import read_batches
from keras_qat.calibration.methods import Observer, find_observer
from keras_qat.calibration.ranges import Ranges
from keras_qat.errors import DataError, UnsupportedModelError
from keras_qat.graph import Trace, trace
from keras_qat.transform import copy_layer, rebuild
from keras_qat.types import Placement, QuantSpec, TensorRange

_MAGNITUDE = 0x7FFF_FFFF
"""All bits of a float32 but the sign. Read as integers, magnitudes keep their order; NaN comes after infinity."""

_IMAGE_RANK = 4
_FEWEST_COLUMNS = 3

_ENOUGH = 16384
"""Numbers of one image that are counted. ResNet50's largest tensors have 800,000, and hundreds of images follow."""

_ALL_BINS = BINS + (1 << 23 - DROPPED_BITS)
"""With those of infinity and NaN."""


class Observe(keras.layers.Layer):
    """The largest magnitude of a tensor, and how often each occurs; see `Histogram` for the bins.

    Args:
        counts: whether to count.
    """

    def __init__(self, *, counts: bool, **kwargs: Any) -> None:
        # A global policy of float16 would round what is to be measured before it gets here.
        super().__init__(autocast=False, **kwargs)
        self.counts = counts

    def call(self, x: Any) -> tuple[Any, Any, Any]:
        """Observe one batch.

        Args:
            x: float tensor of any shape.

        Returns:
            counts, int32, shape (BINS,), or (0,) without counts; the largest of the numbers' bits, once as an int32 and
            once as a uint32 scalar, for `largest_magnitude`.
        """
        x = ops.cast(x, "float32")
        # Two passes that write nothing, where one over the magnitudes would first write them.
        largest = ops.max(_view(x, "int32")), ops.max(_view(x, "uint32"))
        if not self.counts:
            return ops.zeros((0,), "int32"), *largest
        bits = ops.bitwise_and(_view(_sample(x), "int32"), _MAGNITUDE)
        count = _COUNT.get(keras.backend.backend(), _count_by_segments)
        return count(ops.right_shift(bits, DROPPED_BITS))[:BINS], *largest

    def compute_output_spec(self, x: Any) -> tuple[Any, Any, Any]:  # noqa: ARG002
        """Static shapes, so that the graph can be built without running it."""
        counts = keras.KerasTensor((BINS if self.counts else 0,), "int32")
        return counts, keras.KerasTensor((), "int32"), keras.KerasTensor((), "uint32")


def largest_magnitude(signed: Any, unsigned: Any) -> float:
    """The largest magnitude of a tensor, from the largest of its numbers' bits; NaN where one is NaN.

    Read as signed integers the largest of all is that of the positive numbers, as unsigned ones that of the negative,
    since the sign is the highest bit; and NaN comes after infinity.

    Example:
        >>> bits = np.array([1.5, -2.0], "float32").view("int32")
        >>> largest_magnitude(bits.max(), bits.view("uint32").max())
        2.0
    """
    bits = max(int(signed), 0, int(unsigned) & _MAGNITUDE)
    return float(np.array(bits, np.int32).view(np.float32))


def _view(x: Any, dtype: str) -> Any:
    """The bits of a float32 tensor as integers, shape (n,)."""
    # `view` wants to know the size of the last axis.
    return ops.reshape(ops.view(ops.reshape(x, (-1, 1)), dtype), (-1,))


def sampled_columns(shape: tuple[int | None, ...]) -> np.ndarray | None:
    """Which columns of a large image tensor are counted; `None` for all.

    Args:
        shape: (batch, height, width, channels) or (batch, channels, height, width).

    Returns:
        Indices along axis 2, which is an axis of pixels in either order: evenly spread, neither the first nor the last,
        where borders are, and both even and odd ones; at least 3, and as many as hold some ten thousand numbers of an
        image.
    """
    if len(shape) != _IMAGE_RANK or None in shape[1:]:
        return None
    size = shape[2] or 1
    step = min(math.prod(n or 1 for n in shape[1:]) // _ENOUGH, (size - 2) // _FEWEST_COLUMNS)
    step -= 1 - step % 2
    count = max(size - 2, 1) // max(step, 1)
    return 1 + (size - 2 - (count - 1) * step) // 2 + step * np.arange(count) if step > 1 else None


def _sample(x: Any) -> Any:
    columns = sampled_columns(tuple(x.shape))
    return x if columns is None else ops.take(x, columns, axis=2)


def _count_by_segments(index: Any) -> Any:
    return ops.segment_sum(ops.ones_like(index), index, num_segments=_ALL_BINS)


def _count_in_tensorflow(index: Any) -> Any:
    import tensorflow as tf

    # `ops.bincount` would first look for the largest index, and its shape is not static.
    no_weights = tf.zeros((0,), tf.int32)
    return tf.raw_ops.DenseBincount(input=index, size=_ALL_BINS, weights=no_weights, binary_output=False)


_COUNT: Mapping[str, Callable[[Any], Any]] = {"tensorflow": _count_in_tensorflow}
"""The fastest way on a backend; on others segments are summed."""


def build_probe(trace: Trace, tensors: Sequence[str], *, counts: bool) -> keras.Model:
    """A copy of the traced model whose outputs are what is observed of `tensors`.

    Args:
        trace: the float model.
        tensors: names of the tensors to observe.
        counts: whether to count magnitudes, or only to find the largest.

    Returns:
        A model from the float model's inputs to a dictionary {tensor: what `Observe` returns}.
    """
    flowing: dict[str, Any] = {}

    def remember(edge: Any, tensor: Any) -> Any:
        flowing[edge.tensor] = tensor
        return tensor

    model = rebuild(trace, copy_layer, remember)
    seen = {
        name: Observe(counts=counts, name=f"keras_qat_observe_{i}")(flowing[name]) for i, name in enumerate(tensors)
    }
    return keras.Model(model.inputs, seen, name=f"{trace.name}_probe")


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

"""Float model + images → the range of every tensor that will be quantized.

A probe, which is a copy of the model, observes its own activations inside the compiled forward pass. The largest
magnitude is taken over all numbers. Counting all of them would take longer than some convolutions, so in large tensors
only some columns of pixels are counted, always the same ones: the counts still depend on the images alone. Only the
counts leave the device, a quarter of a megabyte for each tensor and batch, whatever the batch and image size.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import keras
import numpy as np

from keras_qat.calibration import intake, kernel_ranges, ranges
from keras_qat.calibration.histogram import BINS, DROPPED_BITS, Histogram, bars, merge, summarize
from keras_qat.calibration.methods import Observer, find_observer
from keras_qat.errors import DataError, UnsupportedModelError
from keras_qat.graph import Trace, trace
from keras_qat.types import Placement, QuantSpec, TensorRange

_logger = logging.getLogger(__name__)

_MAGNITUDE = 0x7FFF_FFFF
"""All bits of a float32 except the sign. Read as integers, magnitudes keep their order; NaN comes after infinity."""

_SIGN = -0x8000_0000
"""The bit of a float32's sign, as an int32."""

_ALL_BINS = BINS + (1 << 23 - DROPPED_BITS)
"""The number of bins with those of infinity and NaN."""

_IMAGE_RANK = 4

_FEWEST_COLUMNS = 3

_ENOUGH = 16384
"""How many numbers of one image are counted. ResNet50's largest tensors have 800,000, and hundreds of images follow."""


def calibrate(
    model: Any,
    placement: Placement,
    batches: Any,
    *,
    method: str = "mse",
    images: int | None = None,
    total: int | None = None,
) -> ranges.Ranges:
    """Run the float model over images and choose the range of each observed tensor.

    One streaming pass: memory does not grow with the number of images, and their order matters only for `"ema"`.

    Args:
        model: The float model. It is not changed.
        placement: The placement, from `plan`.
        batches: An array of images, of shape (batch, height, width, channels) for channels last; an iterable of
            batches, with labels or without; a `tf.data.Dataset`, a `keras.utils.PyDataset` or a DataLoader: everything
            that `read_batches` accepts. A model with several inputs takes lists or dictionaries of arrays.
        method: The observer: `"minmax"`, `"ema"`, `"percentile"`, `"entropy"`, `"mse"` or `"auto"`.
        images: The exact number of images to read; all by default. If the data has fewer, a warning is logged.
        total: The number of batches, for the progress bar, if the data cannot tell it.

    Returns:
        {tensor name: its range}, a mapping that can be saved and compared.

    Raises:
        DataError: If there are no images, if they do not fit the model's input or are not finite, or if they never end
            and `images` is not given.
        UnsupportedModelError: If an activation is NaN or infinite. The first such tensor is named.
        UserError: If there is no such method.
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
) -> Mapping[str, ranges.Ranges]:
    """Choose the ranges by several methods in one pass. The arguments and errors are those of `calibrate`.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_qat import plan
        >>> x = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))
        >>> data = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
        >>> ranges = calibrate_by_all(model, plan(trace(model).graph, "tensorrt"), data, ("minmax", "mse"))
        >>> ranges["minmax"]["image"].amax > ranges["mse"]["image"].amax
        True
    """
    observers = {method: find_observer(method) for method in methods}
    tensors = tuple(dict.fromkeys(name for names in placement.sources.values() for name in names))
    if not tensors:
        return dict.fromkeys(methods, ranges.Ranges())
    probe = build_probe(trace(model), tensors, counts=any(o.counts for o in observers.values()))
    states = {(method, name): o.init() for method, o in observers.items() for name in placement.sources}
    count, variety = 0, intake.Variety()
    for x in intake.read_batches(batches, model, images=images, description="calibrating", total=total):
        count += len(x[0])
        variety.add(x)
        observed = probe.predict_on_batch(x)
        for name, sources in placement.sources.items():
            histogram = reduce(merge, (_histogram_of(source, *observed[source]) for source in sources))
            for method, observer in observers.items():
                states[method, name] = observer.update(states[method, name], histogram)
    if count == 0:
        raise DataError("There is nothing to calibrate with. Received: 0 images. Give at least one batch.")
    if variety.problem and count > 1:
        _logger.warning("%s%s", variety.problem, intake.VARIETY)
    specs = placement.specs
    return {
        method: ranges.Ranges({name: _range(o, states[method, name], specs[name], count) for name in placement.sources})
        for method, o in observers.items()
    }


def _histogram_of(tensor: str, counts: Any, signed: Any, unsigned: Any) -> Histogram:
    """Return the histogram of a tensor in one batch, from what `Observe` returned.

    Raises:
        UnsupportedModelError: If a number is not finite.
    """
    amax = largest_magnitude(signed, unsigned)
    if not np.isfinite(amax):
        raise UnsupportedModelError(
            f"The tensor {tensor!r} is not finite on the calibration images. Received: a largest magnitude of "
            f"{amax}. Check the weights before this layer and the preprocessing of the images."
        )
    return Histogram(np.asarray(counts, np.int64), amax)


def _range(observer: Observer, state: Any, spec: QuantSpec, images: int) -> TensorRange:
    shown = (summarize(state), bars(state)) if observer.counts else ()
    return TensorRange(*observer.finalize(state, spec), images, *shown)


def build_probe(trace: Trace, tensors: Sequence[str], *, counts: bool) -> keras.Model:
    """Build a copy of the traced model whose outputs are what `Observe` returns for each tensor.

    Args:
        trace: The float model.
        tensors: The names of the tensors to observe.
        counts: Whether to count magnitudes, or only to find the largest.

    Returns:
        A model from the float model's inputs to a dictionary by the tensors' names.
    """
    network, flowing = kernel_ranges.copy_network(trace)
    outputs = {
        name: Observe(counts=counts, name=f"keras_qat_observe_{i}")(flowing[name]) for i, name in enumerate(tensors)
    }
    return keras.Model(network.inputs, outputs, name=f"{trace.name}_probe")


class Observe(keras.layers.Layer):
    """Compute the largest magnitude of a tensor and how often each magnitude occurs, in the bins of `Histogram`.

    Args:
        counts: Whether to count.
    """

    def __init__(self, *, counts: bool, **kwargs: Any) -> None:
        # Under a global policy of float16, autocast would round the numbers before they are measured.
        super().__init__(autocast=False, **kwargs)
        self.counts = counts

    def call(self, x: Any) -> tuple[Any, Any, Any]:
        """Observe one batch.

        Args:
            x: Float tensor of any shape.

        Returns:
            The counts, int32, shape (BINS,), or (0,) without counts; and the largest of the numbers' bits, as an int32
            scalar and as a uint32 scalar, for `largest_magnitude`.
        """
        x = keras.ops.cast(x, "float32")
        # Two passes that write nothing. A single pass over the magnitudes would have to write them first.
        unsigned = _UNSIGNED.get(keras.backend.backend(), lambda x: _bits(x, "uint32"))
        largest = keras.ops.max(_bits(x, "int32")), keras.ops.max(unsigned(x))
        if not self.counts:
            return keras.ops.zeros((0,), "int32"), *largest
        columns = sampled_columns(tuple(x.shape))
        sample = x if columns is None else keras.ops.take(x, columns, axis=2)
        index = keras.ops.right_shift(keras.ops.bitwise_and(_bits(sample, "int32"), _MAGNITUDE), DROPPED_BITS)
        count = _COUNT.get(keras.backend.backend(), _count_by_segments)
        return count(index)[:BINS], *largest

    def compute_output_spec(self, x: Any) -> tuple[Any, Any, Any]:  # noqa: ARG002
        """Return the static shapes, so that the graph can be built without running the layer."""
        counts = keras.KerasTensor((BINS if self.counts else 0,), "int32")
        return counts, keras.KerasTensor((), "int32"), keras.KerasTensor((), "uint32")


def _bits(x: Any, dtype: str) -> Any:
    """Return the bits of a float32 tensor as integers, shape (n,)."""
    # `view` needs the size of the last axis.
    return keras.ops.reshape(keras.ops.view(keras.ops.reshape(x, (-1, 1)), dtype), (-1,))


def _signs_flipped(x: Any) -> Any:
    return keras.ops.bitwise_xor(_bits(x, "int32"), _SIGN)


_UNSIGNED: Mapping[str, Callable[[Any], Any]] = {"torch": _signs_flipped}
"""Integers whose largest tells the largest negative number. Keras has no uint32 on PyTorch: there it is an int32 whose
sign is flipped."""


def largest_magnitude(signed: Any, unsigned: Any) -> float:
    """Return the largest magnitude of a tensor from the largest of its numbers' bits; NaN if a number is NaN.

    The sign is the highest bit. Read as signed integers, the largest bits are therefore those of the largest positive
    number; read as unsigned integers, or as signed ones with the sign flipped, those of the largest negative one. NaN
    comes after infinity in all.

    Example:
        >>> bits = np.array([1.5, -2.0], "float32").view("int32")
        >>> largest_magnitude(bits.max(), bits.view("uint32").max())
        2.0
    """
    bits = max(int(signed), 0, int(unsigned) & _MAGNITUDE)
    return float(np.array(bits, np.int32).view(np.float32))


def sampled_columns(shape: tuple[int | None, ...]) -> np.ndarray | None:
    """Return which columns of a large image tensor are counted; `None` for all.

    Args:
        shape: (batch, height, width, channels) or (batch, channels, height, width).

    Returns:
        Indices along axis 2, which is an axis of pixels in both layouts. They are evenly spread, both even and odd, and
        exclude the first and the last column, where borders are. There are at least 3, and as many as hold some ten
        thousand numbers of an image.
    """
    if len(shape) != _IMAGE_RANK or None in shape[1:]:
        return None
    size = shape[2] or 1
    step = min(math.prod(n or 1 for n in shape[1:]) // _ENOUGH, (size - 2) // _FEWEST_COLUMNS)
    step -= 1 - step % 2
    count = max(size - 2, 1) // max(step, 1)
    return 1 + (size - 2 - (count - 1) * step) // 2 + step * np.arange(count) if step > 1 else None


def _count_by_segments(index: Any) -> Any:
    return keras.ops.segment_sum(keras.ops.ones_like(index), index, num_segments=_ALL_BINS)


def _count_in_tensorflow(index: Any) -> Any:
    import tensorflow as tf

    # `keras.ops.bincount` would look for the largest index first, and its shape would not be static.
    no_weights = tf.zeros((0,), tf.int32)
    return tf.raw_ops.DenseBincount(input=index, size=_ALL_BINS, weights=no_weights, binary_output=False)


_COUNT: Mapping[str, Callable[[Any], Any]] = {"tensorflow": _count_in_tensorflow}
"""The fastest way to count on a backend; the others sum segments."""

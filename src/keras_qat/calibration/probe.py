"""A model that observes its own activations, inside the compiled forward pass.

Only counts leave the device, a quarter of a megabyte a tensor and batch, whatever the batch and the image size.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_qat.calibration.histogram import BINS, DROPPED_BITS
from keras_qat.graph import Trace
from keras_qat.transform import copy_layer, rebuild

_MAGNITUDE = 0x7FFF_FFFF
"""All bits of a float32 but the sign. Read as integers, magnitudes keep their order; NaN comes after infinity."""

_ALL_BINS = BINS + (1 << 23 - DROPPED_BITS)
"""With those of infinity and NaN."""


class Observe(keras.layers.Layer):
    """The largest magnitude of a tensor, and how often each occurs; see `Histogram` for the bins.

    Args:
        counts: whether to count.
    """

    def __init__(self, *, counts: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.counts = counts

    def call(self, x: Any) -> tuple[Any, Any]:
        """Observe one batch.

        Args:
            x: float tensor of any shape.

        Returns:
            counts, int32, shape (BINS,), or (0,) without counts; the bits of the largest magnitude, int32 scalar:
            those of infinity or NaN where a number is not finite.
        """
        # `view` wants to know the size of the last axis.
        column = ops.view(ops.reshape(ops.cast(x, "float32"), (-1, 1)), "int32")
        bits = ops.bitwise_and(ops.reshape(column, (-1,)), _MAGNITUDE)
        largest = ops.max(bits)
        if not self.counts:
            return ops.zeros((0,), "int32"), largest
        count = _COUNT.get(keras.backend.backend(), _count_by_segments)
        return count(ops.right_shift(bits, DROPPED_BITS))[:BINS], largest

    def compute_output_spec(self, x: Any) -> tuple[Any, Any]:  # noqa: ARG002
        """Static shapes, so that the graph can be built without running it."""
        return keras.KerasTensor((BINS if self.counts else 0,), "int32"), keras.KerasTensor((), "int32")


def _count_by_segments(index: Any) -> Any:
    return ops.segment_sum(ops.ones_like(index), index, num_segments=_ALL_BINS)


def _count_in_tensorflow(index: Any) -> Any:
    return ops.bincount(index, minlength=_ALL_BINS)


_COUNT: Mapping[str, Callable[[Any], Any]] = {"tensorflow": _count_in_tensorflow}
"""`bincount` is the fastest where it compiles; where its shape must be static, as in JAX, it doesn't."""


def build_probe(trace: Trace, tensors: Sequence[str], *, counts: bool) -> keras.Model:
    """A copy of the traced model whose outputs are what is observed of `tensors`.

    Args:
        trace: the float model.
        tensors: names of the tensors to observe.
        counts: whether to count magnitudes, or only to find the largest.

    Returns:
        A model from the float model's inputs to a dictionary {tensor: (counts, bits of the largest magnitude)}.
    """
    flowing: dict[str, Any] = {}

    def remember(edge: Any, tensor: Any) -> Any:
        flowing[edge.tensor] = tensor
        return tensor

    model = rebuild(trace, copy_layer, remember)
    seen = {name: Observe(counts=counts, name=f"observe_{i}")(flowing[name]) for i, name in enumerate(tensors)}
    return keras.Model(model.inputs, seen, name=f"{trace.name}_probe")

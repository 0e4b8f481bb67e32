"""A model that computes histograms of its own activations, inside the compiled forward pass.

Only counts leave the device, a few kilobytes a tensor, whatever the batch and the image size.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_qat.calibration.histogram import BINS, SMALLEST
from keras_qat.graph import Trace
from keras_qat.transform import copy_layer, rebuild


class Observe(keras.layers.Layer):
    """Counts the magnitudes of its input; see `Histogram` for the bins."""

    def call(self, x: Any) -> tuple[Any, Any, Any]:
        """Histogram one batch.

        Args:
            x: float tensor of any shape.

        Returns:
            counts, int32, shape (BINS,); exponent k, float32 scalar; amax, float32 scalar, NaN where a number is
            not finite.
        """
        magnitude = ops.abs(ops.reshape(ops.cast(x, "float32"), (-1,)))
        finite = ops.all(ops.isfinite(magnitude))
        magnitude = ops.where(finite, magnitude, ops.zeros_like(magnitude))
        amax = ops.max(magnitude)
        exponent = ops.floor(ops.log2(ops.maximum(amax, SMALLEST))) + 1
        index = ops.cast(magnitude * (BINS / ops.power(2.0, exponent)), "int32")
        counts = ops.bincount(ops.minimum(index, BINS - 1), minlength=BINS)
        return counts, exponent, ops.where(finite, amax, float("nan"))

    def compute_output_spec(self, x: Any) -> tuple[Any, Any, Any]:  # noqa: ARG002
        """Static shapes, so that the graph can be built without running it."""
        scalar = keras.KerasTensor((), "float32")
        return keras.KerasTensor((BINS,), "int32"), scalar, keras.KerasTensor((), "float32")


def build_probe(trace: Trace, tensors: Sequence[str]) -> keras.Model:
    """A copy of the traced model whose outputs are the histograms of `tensors`.

    Args:
        trace: the float model.
        tensors: names of the tensors to observe.

    Returns:
        A model from the float model's inputs to a dictionary {tensor: (counts, exponent, amax)}.
    """
    flowing: dict[str, Any] = {}

    def remember(edge: Any, tensor: Any) -> Any:
        flowing[edge.tensor] = tensor
        return tensor

    model = rebuild(trace, copy_layer, remember)
    histograms = {name: Observe(name=f"observe_{i}")(flowing[name]) for i, name in enumerate(tensors)}
    return keras.Model(model.inputs, histograms, name=f"{trace.name}_probe")

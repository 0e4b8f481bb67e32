"""`FakeQuantize`: a Q/DQ pair on an edge of a Keras model."""

from dataclasses import asdict
from typing import Any, get_args

import keras
import numpy as np
from keras import ops

from keras_qat.graph import register_kind
from keras_qat.layers.arithmetic import SMALLEST_AMAX, fake_quantize, fake_quantize_learned
from keras_qat.types import OpKind, QuantSpec, RangeMode

_MOMENTUM = 0.99
"""Weight of the old range in the moving average of `range_mode="ema"`."""


@keras.saving.register_keras_serializable(package="keras_qat")
class FakeQuantize(keras.layers.Layer):
    """Rounds its input to the integer grid that the deployed engine will use.

    A model has one such layer for each quantized tensor, shared by all consumers of the tensor. The layer holds the
    range as a weight, so it is saved, loaded and listed in `model.summary()` like any other layer.

    Args:
        spec: how the tensor is quantized, a `QuantSpec` or its dictionary.
        amax: largest magnitude kept, finite and not negative.
        range_mode: how training updates the range a. `"fixed"`: not at all. `"ema"`: by a ← 0.99 a + 0.01 max|x| in
            each training step. `"learned"`: as a weight that the optimizer trains with LSQ's gradient. With
            `trainable=False` the range stays as it is in every mode.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `amax` is negative, infinite or NaN, or the mode is unknown.

    Example:
        >>> layer = FakeQuantize(QuantSpec(), amax=127.0)
        >>> layer(np.array([[1.4, 300.0]], "float32")).numpy().tolist()
        [[1.0, 127.0]]
    """

    def __init__(
        self,
        spec: QuantSpec | dict[str, Any],
        amax: float = 1.0,
        range_mode: RangeMode = "fixed",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not (np.isfinite(amax) and amax >= 0):
            raise ValueError(
                f"The range of {self.name!r} must be finite and not negative. Received: amax={amax}. "
                "Calibrate with images that make the tensor non-zero and the model's numbers finite."
            )
        if range_mode not in get_args(RangeMode):
            known = ", ".join(get_args(RangeMode))
            raise ValueError(f"Unknown range mode of {self.name!r}. Received: {range_mode!r}. Choose one of: {known}.")
        self.spec = spec if isinstance(spec, QuantSpec) else QuantSpec(**spec)
        self.initial_amax = float(amax)
        # Without a setter: TensorFlow's tape watches only weights that were created as trainable.
        self._range_mode: RangeMode = range_mode

    @property
    def range_mode(self) -> RangeMode:
        """How training updates the range."""
        return self._range_mode

    def freeze_range(self) -> None:
        """Keep the range as it is from now on; a training step that is already compiled must be compiled again."""
        self._range_mode = "fixed"
        if self.built:
            self.amax.trainable = False

    def build(self, input_shape: Any) -> None:  # noqa: ARG002
        """Create the range, a scalar weight, which the optimizer trains only if it is learned."""
        self.amax = self.add_weight(
            name="amax",
            shape=(),
            initializer=keras.initializers.Constant(self.initial_amax),
            trainable=self.range_mode == "learned",
            dtype="float32",
            autocast=False,
            # Too long a step must not make a small range negative: it would never get a gradient again.
            constraint=lambda amax: ops.maximum(amax, SMALLEST_AMAX),
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Fake-quantize a float tensor of any shape; the result has its shape and dtype."""
        if self.range_mode == "learned":
            return fake_quantize_learned(inputs, self.amax, self.spec, training=bool(training))
        if self.range_mode == "ema" and training and self.trainable:
            batch_amax = ops.cast(ops.max(ops.abs(inputs)), "float32")
            self.amax.assign(_MOMENTUM * self.amax + (1 - _MOMENTUM) * batch_amax)
        return fake_quantize(inputs, self.amax, self.spec, training=bool(training))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer; the current range is a weight, and not among them."""
        return {
            **super().get_config(),
            "spec": asdict(self.spec),
            "amax": self.initial_amax,
            "range_mode": self.range_mode,
        }


register_kind(FakeQuantize, OpKind.FAKE_QUANTIZE)

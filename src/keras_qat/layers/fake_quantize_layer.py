"""`FakeQuantize`: a Q/DQ pair on an edge of a Keras model."""

from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from keras_qat.graph import register_kind
from keras_qat.layers.arithmetic import fake_quantize
from keras_qat.types import OpKind, QuantSpec


@keras.saving.register_keras_serializable(package="keras_qat")
class FakeQuantize(keras.layers.Layer):
    """Rounds its input to the integer grid that the deployed engine will use.

    One such layer stands for each quantized tensor and is shared by all its consumers. It holds the calibrated
    range as a weight, so it is saved, loaded and seen in `model.summary()` like any other layer.

    Args:
        spec: how the tensor is quantized, a `QuantSpec` or its dictionary.
        amax: largest magnitude kept, finite and not negative.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: `amax` is negative, infinite or NaN.

    Example:
        >>> layer = FakeQuantize(QuantSpec(), amax=127.0)
        >>> layer(np.array([[1.4, 300.0]], "float32")).numpy().tolist()
        [[1.0, 127.0]]
    """

    def __init__(self, spec: QuantSpec | dict[str, Any], amax: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (np.isfinite(amax) and amax >= 0):
            raise ValueError(
                f"The range of {self.name!r} must be finite and not negative. Received: amax={amax}. "
                "Calibrate with images that make the tensor non-zero and the model's numbers finite."
            )
        self.spec = spec if isinstance(spec, QuantSpec) else QuantSpec(**spec)
        self.initial_amax = float(amax)

    def build(self, input_shape: Any) -> None:  # noqa: ARG002
        """Make the range, a scalar weight that the optimizer leaves alone."""
        self.amax = self.add_weight(
            name="amax",
            shape=(),
            initializer=keras.initializers.Constant(self.initial_amax),
            trainable=False,
            dtype="float32",
            autocast=False,
        )

    def call(self, inputs: Any) -> Any:
        """Fake-quantize a tensor of any shape; the shape and dtype stay."""
        return fake_quantize(inputs, self.amax, self.spec)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Enough to build the layer again; the range itself is a weight."""
        return {**super().get_config(), "spec": asdict(self.spec), "amax": self.initial_amax}


register_kind(FakeQuantize, OpKind.FAKE_QUANTIZE)

"""The Keras layers that simulate quantization: on an edge, and with a quantized kernel.

`FakeQuantize` is a Q/DQ pair on an edge of a model. Conv2D, DepthwiseConv2D and Dense with fake-quantized kernels stand
in for float layers, by a registry. The scale of each output channel follows the weights at every training step; bias,
activation and everything else are Keras's own, and the layers load the weights of the float layer unchanged.
"""

from dataclasses import asdict
from typing import Any, get_args

import keras
import numpy as np

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import is_registered, known_type, layer_settings, register_kind, register_like
from keras_qat.layers.arithmetic import SMALLEST_AMAX, fake_quantize, fake_quantize_kernel, fake_quantize_learned
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
        target: name of the target whose placement put the layer there; `None` if it isn't known. A model that was
            quantized for one engine isn't exported for another.
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
        target: str | None = None,
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
        self.target = target
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
            constraint=lambda amax: keras.ops.maximum(amax, SMALLEST_AMAX),
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Fake-quantize a float tensor of any shape; the result has its shape and dtype."""
        if self.range_mode == "learned":
            return fake_quantize_learned(inputs, self.amax, self.spec, training=bool(training))
        if self.range_mode == "ema" and training and self.trainable:
            batch_amax = keras.ops.cast(keras.ops.max(keras.ops.abs(inputs)), "float32")
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
            "target": self.target,
        }


register_kind(FakeQuantize, OpKind.FAKE_QUANTIZE)


class WeightQuantized:
    """Base class of layers with a quantized kernel; it precedes the float layer in the list of base classes.

    Args:
        *args: positional arguments of the float layer.
        weight_spec: how the kernel is quantized, a `QuantSpec` or its dictionary.
        **kwargs: keyword arguments of the float layer.
    """

    kernel_reduce_axes: tuple[int, ...]
    """The axes of the kernel that are not output channels."""

    def __init__(self, *args: Any, weight_spec: QuantSpec | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weight_spec = weight_spec if isinstance(weight_spec, QuantSpec) else QuantSpec(**weight_spec)

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        """Keras's method; the kernel stays float32 in mixed precision, since a rounded one gives other integers."""
        if kwargs.get("name") == "kernel":
            kwargs["autocast"] = False
        return super().add_weight(*args, **kwargs)  # type: ignore[misc]

    def quantized_kernel(self, kernel: Any) -> Any:
        """The kernel as the engine sees it: rounded per output channel, of the same shape and dtype."""
        return fake_quantize_kernel(kernel, self.kernel_reduce_axes, self.weight_spec)

    def get_config(self) -> dict[str, Any]:
        """The float layer's configuration and the weight spec."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        return {**config, "weight_spec": asdict(self.weight_spec)}


class _ConvolutionQuantized(WeightQuantized):
    """A convolution, whose kernel is (…, in, out)."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve with the rounded kernel."""
        rounded = keras.ops.cast(self.quantized_kernel(kernel), self.compute_dtype)  # type: ignore[attr-defined]
        return super().convolution_op(inputs, rounded)  # type: ignore[misc]


@keras.saving.register_keras_serializable(package="keras_qat")
class QuantizedConv1D(_ConvolutionQuantized, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with per-output-channel fake-quantized weights."""

    kernel_reduce_axes = (0, 1)

    def call(self, inputs: Any) -> Any:
        """Convolve with the rounded kernel; Keras's own `call` of this layer doesn't use `convolution_op`."""
        causal = self.padding == "causal"
        outputs = keras.ops.conv(
            keras.ops.pad(inputs, self._compute_causal_padding()) if causal else inputs,
            keras.ops.cast(self.quantized_kernel(self.kernel), self.compute_dtype),
            strides=list(self.strides),
            padding="valid" if causal else self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return _with_bias_and_activation(self, outputs)


@keras.saving.register_keras_serializable(package="keras_qat")
class QuantizedConv2D(_ConvolutionQuantized, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with per-output-channel fake-quantized weights."""

    kernel_reduce_axes = (0, 1, 2)


@keras.saving.register_keras_serializable(package="keras_qat")
class QuantizedConv3D(_ConvolutionQuantized, keras.layers.Conv3D):
    """`keras.layers.Conv3D` with per-output-channel fake-quantized weights."""

    kernel_reduce_axes = (0, 1, 2, 3)


def _with_bias_and_activation(layer: Any, outputs: Any) -> Any:
    """What a convolution does behind its products."""
    if layer.use_bias:
        last = layer.data_format == "channels_last"
        bias = layer.bias if last else keras.ops.reshape(layer.bias, (1, -1, *[1] * layer.rank))
        outputs = outputs + bias
    return outputs if layer.activation is None else layer.activation(outputs)


class _DepthwiseQuantized(WeightQuantized):
    """A depthwise convolution, whose kernel is (…, in, multiplier)."""

    def call(self, inputs: Any) -> Any:
        """Convolve each channel with its rounded kernel."""
        layer: Any = self
        outputs = keras.ops.depthwise_conv(
            inputs,
            keras.ops.cast(self.quantized_kernel(layer.kernel), layer.compute_dtype),
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )
        return _with_bias_and_activation(self, outputs)


@keras.saving.register_keras_serializable(package="keras_qat")
class QuantizedDepthwiseConv1D(_DepthwiseQuantized, keras.layers.DepthwiseConv1D):
    """`keras.layers.DepthwiseConv1D` with per-output-channel fake-quantized weights."""

    kernel_reduce_axes = (0,)


@keras.saving.register_keras_serializable(package="keras_qat")
class QuantizedDepthwiseConv2D(_DepthwiseQuantized, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with per-output-channel fake-quantized weights."""

    kernel_reduce_axes = (0, 1)


class _TransposeQuantized(WeightQuantized):
    """A transposed convolution, whose kernel is (…, out, in)."""

    def call(self, inputs: Any) -> Any:
        """Convolve with the rounded kernel."""
        layer: Any = self
        outputs = keras.ops.conv_transpose(
            inputs,
            keras.ops.cast(self.quantized_kernel(layer.kernel), layer.compute_dtype),
            strides=list(layer.strides),
            padding=layer.padding,
            output_padding=layer.output_padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )
        return _with_bias_and_activation(self, outputs)


@keras.saving.register_keras_serializable(package="keras_qat")
class QuantizedConv1DTranspose(_TransposeQuantized, keras.layers.Conv1DTranspose):
    """`keras.layers.Conv1DTranspose` with per-output-channel fake-quantized weights."""

    kernel_reduce_axes = (0, 2)


@keras.saving.register_keras_serializable(package="keras_qat")
class QuantizedConv2DTranspose(_TransposeQuantized, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` with per-output-channel fake-quantized weights."""

    kernel_reduce_axes = (0, 1, 3)


@keras.saving.register_keras_serializable(package="keras_qat")
class QuantizedConv3DTranspose(_TransposeQuantized, keras.layers.Conv3DTranspose):
    """`keras.layers.Conv3DTranspose` with per-output-channel fake-quantized weights."""

    kernel_reduce_axes = (0, 1, 2, 4)


@keras.saving.register_keras_serializable(package="keras_qat")
class QuantizedDense(WeightQuantized, keras.layers.Dense):
    """`keras.layers.Dense` with per-output-channel fake-quantized weights."""

    kernel_reduce_axes = (0,)

    def call(self, inputs: Any, training: bool | None = None) -> Any:  # noqa: ARG002
        """Multiply by the rounded kernel."""
        outputs = keras.ops.matmul(inputs, keras.ops.cast(self.quantized_kernel(self.kernel), self.compute_dtype))
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs if self.activation is None else self.activation(outputs)


_QUANTIZED: dict[type, type] = {
    keras.layers.Conv1D: QuantizedConv1D,
    keras.layers.Conv2D: QuantizedConv2D,
    keras.layers.Conv3D: QuantizedConv3D,
    keras.layers.Conv1DTranspose: QuantizedConv1DTranspose,
    keras.layers.Conv2DTranspose: QuantizedConv2DTranspose,
    keras.layers.Conv3DTranspose: QuantizedConv3DTranspose,
    keras.layers.DepthwiseConv1D: QuantizedDepthwiseConv1D,
    keras.layers.DepthwiseConv2D: QuantizedDepthwiseConv2D,
    keras.layers.Dense: QuantizedDense,
}
"""The quantized layer type that replaces each float layer type."""

for _float_type, _quantized_type in _QUANTIZED.items():
    register_like(_quantized_type, _float_type)


def register_quantized_layer(float_type: type, quantized_type: type) -> None:
    """Let `quantized_type` replace `float_type` in quantized models.

    A float type without a registered kind gets that of its parent, as a subclass of `keras.layers.Dense` does: the
    layer is one node, and isn't read through.

    Args:
        float_type: a layer type with a kernel.
        quantized_type: a subclass of it that accepts a `weight_spec` and has the same weights in the same order.
    """
    parent = next((base for base in float_type.__mro__ if base in _QUANTIZED), None)
    if parent is not None and not is_registered(float_type):
        register_like(float_type, parent)
    _QUANTIZED[float_type] = quantized_type
    register_like(quantized_type, float_type)


def quantized_layer(layer: Any, spec: QuantSpec, name: str) -> Any:
    """A new layer with the configuration of a float layer and a quantized kernel.

    Args:
        layer: the float layer. It is not changed.
        spec: how the kernel is quantized.
        name: name of the new layer.

    Returns:
        The layer, not built yet.

    Raises:
        UnsupportedModelError: If no quantized layer is registered for the type of `layer` or for a parent that
            computes the same.

    Example:
        >>> quantized_layer(keras.layers.Dense(2), QuantSpec(narrow=True, axis=1), "dense")
        <QuantizedDense name=dense, built=False>
    """
    float_type = known_type(layer, _QUANTIZED)
    if float_type is None:
        known = ", ".join(sorted(t.__name__ for t in _QUANTIZED))
        raise UnsupportedModelError(
            f"No quantized layer stands in for {layer.name!r}. Received: a {type(layer).__name__}; known are {known}. "
            "Register one with `keras_qat.layers.register_quantized_layer(float_type, quantized_type)`."
        )
    settings = layer_settings(layer, float_type)
    return _QUANTIZED[float_type].from_config({**settings, "name": name, "weight_spec": spec})  # type: ignore[attr-defined]

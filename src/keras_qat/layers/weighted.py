"""Conv2D, DepthwiseConv2D and Dense with fake-quantized kernels, and the registry of float layers they replace.

The scale of each output channel follows the weights at every training step. Bias, activation and everything else are
Keras's own, and the layers load the weights of the float layer unchanged.
"""

from dataclasses import asdict
from typing import Any

import keras
from keras import ops

from keras_qat.errors import UnsupportedModelError
from keras_qat.layers.arithmetic import fake_quantize_kernel
from keras_qat.types import QuantSpec


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


@keras.saving.register_keras_serializable(package="keras_qat")
class QuantizedConv2D(WeightQuantized, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with per-output-channel fake-quantized weights."""

    kernel_reduce_axes = (0, 1, 2)

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve with the rounded kernel."""
        return super().convolution_op(inputs, ops.cast(self.quantized_kernel(kernel), self.compute_dtype))


@keras.saving.register_keras_serializable(package="keras_qat")
class QuantizedDepthwiseConv2D(WeightQuantized, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with per-output-channel fake-quantized weights."""

    kernel_reduce_axes = (0, 1)

    def call(self, inputs: Any) -> Any:
        """Convolve each channel with its rounded kernel."""
        outputs = ops.depthwise_conv(
            inputs,
            ops.cast(self.quantized_kernel(self.kernel), self.compute_dtype),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        if self.use_bias:
            last = self.data_format == "channels_last"
            outputs = outputs + (self.bias if last else ops.reshape(self.bias, (1, -1, 1, 1)))
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable(package="keras_qat")
class QuantizedDense(WeightQuantized, keras.layers.Dense):
    """`keras.layers.Dense` with per-output-channel fake-quantized weights."""

    kernel_reduce_axes = (0,)

    def call(self, inputs: Any, training: bool | None = None) -> Any:  # noqa: ARG002
        """Multiply by the rounded kernel."""
        outputs = ops.matmul(inputs, ops.cast(self.quantized_kernel(self.kernel), self.compute_dtype))
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs if self.activation is None else self.activation(outputs)


_QUANTIZED: dict[type, type] = {
    keras.layers.Conv2D: QuantizedConv2D,
    keras.layers.DepthwiseConv2D: QuantizedDepthwiseConv2D,
    keras.layers.Dense: QuantizedDense,
}
"""The quantized layer type that replaces each float layer type."""


def register_quantized_layer(float_type: type, quantized_type: type) -> None:
    """Let `quantized_type` replace `float_type` in quantized models.

    Args:
        float_type: a layer type with a kernel.
        quantized_type: a subclass of it that accepts a `weight_spec` and has the same weights in the same order.
    """
    _QUANTIZED[float_type] = quantized_type


def quantized_layer(layer: Any, spec: QuantSpec, name: str) -> Any:
    """A new layer with the configuration of a float layer and a quantized kernel.

    Args:
        layer: the float layer. It is not changed.
        spec: how the kernel is quantized.
        name: name of the new layer.

    Returns:
        The layer, not built yet.

    Raises:
        UnsupportedModelError: If no quantized layer is registered for exactly the type of `layer`.

    Example:
        >>> quantized_layer(keras.layers.Dense(2), QuantSpec(narrow=True, axis=1), "dense")
        <QuantizedDense name=dense, built=False>
    """
    quantized_type = _QUANTIZED.get(type(layer))
    if quantized_type is None:
        known = ", ".join(sorted(t.__name__ for t in _QUANTIZED))
        raise UnsupportedModelError(
            f"No quantized layer stands in for {layer.name!r}. Received: a {type(layer).__name__}; known are {known}. "
            "Register one with `keras_qat.layers.register_quantized_layer(float_type, quantized_type)`."
        )
    return quantized_type.from_config({**layer.get_config(), "name": name, "weight_spec": spec})  # type: ignore[attr-defined]

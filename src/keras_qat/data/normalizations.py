"""The values of pixels as networks were trained on them: the normalizations that have a name, and gray.

The modes "caffe" (ResNet V1), "tf" (ResNet V2) and "torch" (DenseNet) are those of `keras.applications`
(https://keras.io/api/applications/, `imagenet_utils.preprocess_input`). A network with a Rescaling layer, such as
EfficientNet, reads "raw" pixels; "unit" is what most tutorials use.
"""

from collections.abc import Mapping
from typing import Any, Literal

import tensorflow as tf

from keras_qat.types import Normalization

Mode = Literal["caffe", "tf", "torch", "raw", "unit"]
"""The normalizations that have a name."""

Channels = Literal[1, 3]
"""The channels of a network's input: 1 is gray, 3 is RGB."""

_RED, _BLUE = 0.299, 0.114
"""The weights of the luma of ITU-R BT.601; green has the rest, 0.587."""

WHITE = 255.0
"""The largest value of a pixel."""

_ONES, _ZEROS = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)

# Mean and standard deviation of ImageNet's training images: the first as blue, green, red, from 0 to 255; the others as
# red, green, blue, from 0 to 1.
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_STD = (0.229, 0.224, 0.225)

# (x / 255 - mean) / std with one division: x / (255 · std) - mean / std.
_TORCH = Normalization(
    reverse_channels=False,
    divisor=tuple(WHITE * std for std in _TORCH_STD),
    offset=tuple(mean / std for mean, std in zip(_TORCH_MEAN, _TORCH_STD, strict=True)),
)

NORMALIZATIONS: Mapping[str, Normalization] = {
    "caffe": Normalization(reverse_channels=True, divisor=_ONES, offset=_CAFFE_MEAN_BGR),
    "tf": Normalization(reverse_channels=False, divisor=(127.5, 127.5, 127.5), offset=_ONES),
    "torch": _TORCH,
    "raw": Normalization(reverse_channels=False, divisor=_ONES, offset=_ZEROS),
    "unit": Normalization(reverse_channels=False, divisor=(WHITE, WHITE, WHITE), offset=_ZEROS),
}

GRAY_NORMALIZATIONS: Mapping[str, Normalization] = {
    "tf": Normalization(reverse_channels=False, divisor=(127.5,), offset=(1.0,)),
    "raw": Normalization(reverse_channels=False, divisor=(1.0,), offset=(0.0,)),
    "unit": Normalization(reverse_channels=False, divisor=(WHITE,), offset=(0.0,)),
}
"""The modes for one channel; the other modes have different numbers for red, green and blue."""

OF_CHANNELS: Mapping[int, Mapping[str, Normalization]] = {1: GRAY_NORMALIZATIONS, 3: NORMALIZATIONS}
"""What each mode computes, by the number of channels of the network's input."""

MEANINGS: Mapping[Mode, str] = {
    "unit": "x / 255, from 0 to 1: most networks that people train themselves",
    "raw": "x, from 0 to 255: networks that rescale inside, such as EfficientNet, MobileNetV3, ConvNeXt",
    "tf": "x / 127.5 - 1, from -1 to 1: ResNetV2, MobileNet, MobileNetV2, Inception, Xception",
    "torch": "x / 255, minus ImageNet's mean, over its standard deviation: DenseNet, networks from PyTorch",
    "caffe": "BGR, minus ImageNet's mean: ResNet, VGG",
}
"""One line about each mode, for users who must choose one; the likeliest first."""


def of_channels(custom: Normalization | None, channels: int) -> Normalization | None:
    """A normalization for gray images, if it treats red, green and blue alike; any other as it is."""
    alike = custom is not None and len(set(custom.divisor)) == len(set(custom.offset)) == 1
    if custom is None or channels != 1 or not alike:
        return custom
    return Normalization(reverse_channels=False, divisor=custom.divisor[:1], offset=custom.offset[:1])


def to_gray(pixels: Any) -> Any:
    """The luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, as in Pillow's mode "L" and Keras's `load_img`.

    A pixel that is gray already keeps its value to the bit; `tf.image.rgbto_grayscale` makes 254.97 of 255.

    Args:
        pixels: float32 RGB tensor of shape (..., 3).

    Returns:
        float32 tensor of shape (..., 1).

    Example:
        >>> to_gray(tf.constant([[255.0, 0.0, 0.0], [77.7, 77.7, 77.7]])).numpy().round(3).tolist()
        [[76.245...], [77.69...]]
    """
    red, green, blue = tf.split(pixels, 3, axis=-1)
    return green + _RED * (red - green) + _BLUE * (blue - green)

"""The ways in which networks were fed: the modes of a `Preprocessing`, and what each computes.

"caffe" (ResNet V1), "tf" (ResNet V2) and "torch" (DenseNet) are the modes of `keras.applications`
(https://keras.io/api/applications/, `imagenet_utils.preprocess_input`). A network with a Rescaling layer of its own,
such as EfficientNet, reads "raw" pixels; "unit" is what most tutorials train a network of one's own on.
"""

from collections.abc import Mapping
from typing import Literal

from keras_qat.types import Normalization

Mode = Literal["caffe", "tf", "torch", "raw", "unit"]

Channels = Literal[1, 3]
"""Of a network's input: 1 is gray, 3 is RGB."""

PIXELS = 255.0
"""The largest value of a pixel."""

_ONES, _ZEROS = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)

# Mean and standard deviation of ImageNet's training images: the first blue, green, red, from 0 to 255; the others red,
# green, blue, from 0 to 1.
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_STD = (0.229, 0.224, 0.225)


def _standardize(mean: tuple[float, ...], std: tuple[float, ...]) -> Normalization:
    """(x / 255 - mean) / std with one division: x / (255 · std) - mean / std."""
    (m_r, m_g, m_b), (s_r, s_g, s_b) = mean, std
    return Normalization(
        reverse_channels=False,
        divisor=(PIXELS * s_r, PIXELS * s_g, PIXELS * s_b),
        offset=(m_r / s_r, m_g / s_g, m_b / s_b),
    )


NORMALIZATIONS: Mapping[Mode, Normalization] = {
    "caffe": Normalization(reverse_channels=True, divisor=_ONES, offset=_CAFFE_MEAN_BGR),
    "tf": Normalization(reverse_channels=False, divisor=(127.5, 127.5, 127.5), offset=_ONES),
    "torch": _standardize(_TORCH_MEAN, _TORCH_STD),
    "raw": Normalization(reverse_channels=False, divisor=_ONES, offset=_ZEROS),
    "unit": Normalization(reverse_channels=False, divisor=(PIXELS, PIXELS, PIXELS), offset=_ZEROS),
}

GRAY_NORMALIZATIONS: Mapping[Mode, Normalization] = {
    "tf": Normalization(reverse_channels=False, divisor=(127.5,), offset=(1.0,)),
    "raw": Normalization(reverse_channels=False, divisor=(1.0,), offset=(0.0,)),
    "unit": Normalization(reverse_channels=False, divisor=(PIXELS,), offset=(0.0,)),
}
"""Of one channel; the other modes have numbers for red, green and blue each."""

OF_CHANNELS: Mapping[int, Mapping[Mode, Normalization]] = {1: GRAY_NORMALIZATIONS, 3: NORMALIZATIONS}
"""What each mode computes, by the channels of the network's input."""

MEANINGS: Mapping[Mode, str] = {
    "unit": "x / 255, from 0 to 1: most networks of one's own",
    "raw": "x, from 0 to 255: networks that rescale inside, such as EfficientNet, MobileNetV3, ConvNeXt",
    "tf": "x / 127.5 - 1, from -1 to 1: ResNetV2, MobileNet, MobileNetV2, Inception, Xception",
    "torch": "x / 255, minus ImageNet's mean, over its standard deviation: DenseNet, networks from PyTorch",
    "caffe": "BGR, minus ImageNet's mean: ResNet, VGG",
}
"""Each mode in a line, for those who must choose one; the likeliest first."""

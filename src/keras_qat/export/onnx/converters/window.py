"""The sliding-window attributes that convolution and pooling share."""

from typing import Any

from keras_qat.export.onnx.layout import Shape


def window_attributes(
    size: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    spatial: Shape,
    dilations: tuple[int, int] = (1, 1),
) -> dict[str, Any]:
    """ONNX `kernel_shape`, `strides`, `pads` (or `auto_pad`) and `dilations` of a Keras window.

    Keras's "same" pads so that the output has ceil(n / stride) pixels, the odd pixel at the end; in ONNX that is
    SAME_UPPER. Where the input size n is known the pads are written out, which every engine understands.

    Args:
        size: window height and width.
        strides: vertical and horizontal stride.
        padding: "valid" or "same".
        spatial: height and width of the input, `None` where unknown.
        dilations: vertical and horizontal dilation.

    Example:
        >>> window_attributes((3, 3), (2, 2), "same", (8, 8))["pads"]
        [0, 0, 1, 1]
    """
    attributes: dict[str, Any] = {"kernel_shape": list(size), "strides": list(strides)}
    if tuple(dilations) != (1, 1):
        attributes["dilations"] = list(dilations)
    if padding == "valid":
        return attributes
    if None in spatial:
        return {**attributes, "auto_pad": "SAME_UPPER"}
    totals = [
        max((-(-n // stride) - 1) * stride + (k - 1) * dilation + 1 - n, 0)
        for n, k, stride, dilation in zip(spatial, size, strides, dilations, strict=True)
        if n is not None
    ]
    return {**attributes, "pads": [t // 2 for t in totals] + [t - t // 2 for t in totals]}

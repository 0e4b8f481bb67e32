"""A network by its zoo entry, with the weights the user has."""

from pathlib import Path
from typing import Any

from keras_qat.errors import UserError, WeightsError
from keras_qat.zoo.check import check_finite
from keras_qat.zoo.registry import ZooEntry
from keras_qat.zoo.weights import copy_weights, load_weights

_IMAGENET_CLASSES = 1000


def build_model(entry: ZooEntry, *, weights: str | Path | None, num_classes: int, size: int) -> Any:
    """Build a network whose output is a softmax over `num_classes`.

    Args:
        entry: from `find`.
        weights: `None` for random ones, `"imagenet"` to download them, or a file: `.weights.h5`, `.h5` (as
            Keras offers for download), or a whole model in `.keras`.
        num_classes: how many classes the network tells apart.
        size: side of the square input.

    Returns:
        A `keras.Model` from float32 (batch, size, size, 3) to (batch, num_classes).

    Raises:
        UserError: the network can't be built at that size, or its output isn't `num_classes`.
        WeightsError: the weights can't be had, are corrupt, of another network, or not finite.

    Example:
        >>> from keras_qat.zoo.registry import find
        >>> model = build_model(find("resnet50"), weights=None, num_classes=10, size=32)
        >>> model.output_shape
        (None, 10)
    """
    model = _random(entry, num_classes=num_classes, size=size)
    if weights is None:
        return model
    if weights == "imagenet":
        _download(entry, model, num_classes)
    else:
        load_weights(model, Path(weights))
    check_finite(model)
    return model


def _random(entry: ZooEntry, *, num_classes: int, size: int) -> Any:
    try:
        model = entry.build(size=size, num_classes=num_classes)
    except ValueError as error:
        raise UserError(
            f"{entry.name} can't be built: {error}. Received: size={size}, num_classes={num_classes}. "
            f"Its own size is {entry.preprocessing.size}."
        ) from error
    if model.output_shape != (None, num_classes):
        raise UserError(
            f"{entry.name} must give one number for each class. "
            f"Received: output shape {model.output_shape} for num_classes={num_classes}. "
            "Mend the builder that was registered."
        )
    return model


def _download(entry: ZooEntry, model: Any, num_classes: int) -> None:
    advice = f"Download the file elsewhere ({entry.url or 'see its documentation'}) and give its path."
    if entry.pretrained is None:
        raise WeightsError(
            f"{entry.name} has no ImageNet weights to download. Received: weights='imagenet'. "
            "Give the path of a file, or None for random weights."
        )
    if num_classes != _IMAGENET_CLASSES:
        raise WeightsError(
            f"ImageNet weights have {_IMAGENET_CLASSES} classes, the data have {num_classes}. "
            "Received: weights='imagenet'. Give ImageNet's images, or weights for these classes, or None."
        )
    try:
        source = entry.pretrained()
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        raise WeightsError(
            f"Can't download the ImageNet weights of {entry.name}: {error}. Received: weights='imagenet'. {advice}"
        ) from error
    copy_weights(source, model, "the downloaded ImageNet weights")

"""The networks known by name: how to build each, with which weights, what it reads, and what accuracy to expect."""

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras

from keras_qat.data import Preprocessing
from keras_qat.errors import UserError, WeightsError
from keras_qat.graph import require_finite
from keras_qat.models.weights import copy_weights, load_weights

SEED_MODELS = ("resnet50", "resnet50v2", "resnet101", "resnet101v2")
"""The networks that the project's own accuracy tables cover."""

_IMAGENET_CLASSES = 1000


class Builder(Protocol):
    """Builds a network with random weights whose output is a softmax over the classes."""

    def __call__(self, *, size: int, num_classes: int) -> Any:
        """Return a `keras.Model` from float32 (batch, size, size, 3) to (batch, num_classes)."""


@dataclass(frozen=True)
class ZooEntry:
    """One network.

    Args:
        name: the name by which it is found, in lower case.
        build: builds the network with random weights.
        preprocessing: the preprocessing of its images, at the size it was trained for.
        pretrained: builds the network with ImageNet weights, which it downloads; `None` if there are none.
        reference_top1: the top-1 accuracy on ImageNet's 50,000 validation images to compare with, in percent.
        url: where the network and its weights are documented.
    """

    name: str
    build: Builder
    preprocessing: Preprocessing
    pretrained: Callable[[], Any] | None = None
    reference_top1: float | None = None
    url: str = ""


def _resnet(application: Any, preprocessing: Preprocessing, reference_top1: float | None) -> ZooEntry:
    def build(*, size: int, num_classes: int) -> Any:
        return application(
            weights=None,
            input_shape=(size, size, 3),
            classes=num_classes,
            classifier_activation="softmax",
        )

    return ZooEntry(
        name=application.__name__.lower(),
        build=build,
        preprocessing=preprocessing,
        pretrained=functools.partial(application, weights="imagenet"),
        reference_top1=reference_top1,
        url="https://keras.io/api/applications/resnet/",
    )


_V1 = Preprocessing("caffe", size=224, resize=256)
_V2 = Preprocessing("tf", size=299, resize=342)

_ENTRIES: dict[str, ZooEntry] = {
    entry.name: entry
    for entry in (
        _resnet(keras.applications.ResNet50, _V1, 75.05),
        _resnet(keras.applications.ResNet101, _V1, 76.47),
        _resnet(keras.applications.ResNet152, _V1, None),
        _resnet(keras.applications.ResNet50V2, _V2, 75.36),
        _resnet(keras.applications.ResNet101V2, _V2, 76.89),
        _resnet(keras.applications.ResNet152V2, _V2, None),
    )
}


def names() -> tuple[str, ...]:
    """The names of all networks, sorted."""
    return tuple(sorted(_ENTRIES))


def find(name: str) -> ZooEntry:
    """Look up a network by its name, in upper or lower case.

    Raises:
        UserError: If the name is not known.

    Example:
        >>> entry = find("ResNet50V2")
        >>> entry.name, entry.preprocessing.size
        ('resnet50v2', 299)
    """
    key = name.lower()
    if key in _ENTRIES:
        return _ENTRIES[key]
    close = difflib.get_close_matches(key, _ENTRIES, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise UserError(
        f"There is no network of that name. Received: {name!r}. {hint}"
        f"Known: {', '.join(names())}. Add your own with keras_qat.models.register."
    )


def register(entry: ZooEntry) -> ZooEntry:
    """Add a network, so that it is known by its name.

    Returns:
        `entry`.

    Raises:
        UserError: If the name is taken, empty, or not in lower case.
    """
    if entry.name != entry.name.lower() or not entry.name:
        raise UserError(
            f"A network's name is lower case, since `find` ignores case. Received: name={entry.name!r}. "
            f"Use {entry.name.lower() or 'some name'!r}."
        )
    if entry.name in _ENTRIES:
        raise UserError(
            f"That name is taken. Received: name={entry.name!r}. Choose one other than {', '.join(names())}."
        )
    _ENTRIES[entry.name] = entry
    return entry


def build_model(entry: ZooEntry, *, weights: str | Path | None, num_classes: int, size: int) -> Any:
    """Build a network whose output is a softmax over `num_classes`.

    Args:
        entry: the network, from `find`.
        weights: `None` for random ones, `"imagenet"` to download them, or a file: `.weights.h5`, `.h5` (as
            Keras offers for download), or a whole model in `.keras`.
        num_classes: the number of classes.
        size: the side of the square input in pixels.

    Returns:
        A `keras.Model` from float32 (batch, size, size, 3) to (batch, num_classes).

    Raises:
        UserError: If the network can't be built at that size, or its output is not one number for each class.
        WeightsError: If the weights can't be downloaded or read, are of another network, or are not finite.

    Example:
        >>> from keras_qat.models import find
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
    require_finite(model)
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
            "Correct the builder that was registered."
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

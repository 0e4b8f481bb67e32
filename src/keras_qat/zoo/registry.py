"""The networks known by name: how to build each, what it reads, and what accuracy to expect."""

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import keras

from keras_qat.data.preprocessing import Preprocessing
from keras_qat.errors import UserError


class Builder(Protocol):
    """Makes a network with random weights whose output is a softmax over the classes."""

    def __call__(self, *, size: int, num_classes: int) -> Any:
        """Return a `keras.Model` from (batch, size, size, 3) to (batch, num_classes)."""


@dataclass(frozen=True)
class ZooEntry:
    """One network.

    Args:
        name: lower case; how the user asks for it.
        build: makes the network with random weights.
        preprocessing: what it reads, at the size it was trained for.
        pretrained: makes the network with ImageNet weights, which it downloads; `None` if there are none.
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

SEED_MODELS = ("resnet50", "resnet50v2", "resnet101", "resnet101v2")
"""The networks that the project's own accuracy tables cover."""


def names() -> tuple[str, ...]:
    """The names that `find` knows, sorted."""
    return tuple(sorted(_ENTRIES))


def find(name: str) -> ZooEntry:
    """Look up a network; upper and lower case are the same.

    Raises:
        UserError: the name isn't known.

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
        f"Known: {', '.join(names())}. Add your own with keras_qat.zoo.register."
    )


def register(entry: ZooEntry) -> ZooEntry:
    """Make a network of your own known by its name.

    Returns:
        `entry`.

    Raises:
        UserError: the name is taken, or not in lower case.
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

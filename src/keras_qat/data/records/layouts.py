"""The layouts of record sets: which feature of a `tf.train.Example` holds what."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Layout:
    """The features of one kind of record set.

    Args:
        name: what an error message calls the layout.
        image: the feature that holds the encoded image.
        label: the feature that holds the number of its class.
        first: the number of the first class; `None` if it differs from set to set, and the labels must tell.
        synset: the feature that holds the WordNet id of its class, or a word for the class.
        text: the feature that holds its class in words.
    """

    name: str
    image: str
    label: str
    first: int | None = None
    synset: str | None = None
    text: str | None = None


LAYOUTS = (
    Layout(
        "customary",
        image="image/encoded",
        label="image/class/label",
        synset="image/class/synset",
        text="image/class/text",
    ),
    Layout("TensorFlow Datasets", image="image", label="label", first=0),
)
"""A record has the first layout whose image and label are among its features. Add yours here."""


def find_layout(features: Collection[str]) -> Layout | None:
    """The layout of a record with these features, or `None` if it is not a known one.

    Example:
        >>> find_layout({"image", "label", "file_name"}).name
        'TensorFlow Datasets'
    """
    return next((layout for layout in LAYOUTS if {layout.image, layout.label} <= set(features)), None)


def parse_features(payload: bytes) -> Any:
    """The features of a serialized `tf.train.Example` by their names, or `None` if `payload` is not one."""
    try:
        return tf.train.Example.FromString(payload).features.feature
    except DecodeError:
        return None


def bytes_of(features: Any, name: str | None) -> bytes | None:
    """The first byte string of a feature, or `None` if it has none."""
    values = () if name is None or name not in features else features[name].bytes_list.value
    return values[0] if values else None


def integer_of(features: Any, name: str) -> int | None:
    """The first integer of a feature, or `None` if it has none."""
    values = features[name].int64_list.value if name in features else ()
    return values[0] if values else None

"""The registry of kinds, by the type of a layer or operation.

This module does not import Keras: the layers of keras-qat register themselves while Keras is still being imported.
"""

from collections.abc import Callable
from typing import Any

from keras_qat.types import OpKind

Classifier = Callable[[Any], OpKind]
"""(layer or operation) → its kind, which depends on its configuration."""

KINDS: dict[type, Classifier] = {}


def register_kind(layer_type: type, kind: OpKind | Classifier) -> None:
    """Register the kind of a layer type, which its subclasses inherit.

    Args:
        layer_type: a subclass of `keras.layers.Layer`, or the class of an operation of `keras.ops`.
        kind: its kind, or a function of the layer where the kind depends on the layer's configuration.

    Example:
        >>> class Scaled:
        ...     pass
        >>> register_kind(Scaled, OpKind.SCALE)
        >>> KINDS[Scaled](Scaled())
        <OpKind.SCALE: 'scale'>
    """
    KINDS[layer_type] = kind if callable(kind) and not isinstance(kind, OpKind) else lambda _: OpKind(kind)

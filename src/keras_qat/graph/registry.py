"""The kind of each Keras layer and operation, by its type.

Keras is not imported here: the layers of this package register themselves while Keras is still being imported.
"""

from collections.abc import Callable
from typing import Any

from keras_qat.types import OpKind

Classifier = Callable[[Any], OpKind]

KINDS: dict[type, Classifier] = {}


def register_kind(layer_type: type, kind: OpKind | Classifier) -> None:
    """Say what a layer type computes; subclasses inherit it.

    Args:
        layer_type: a `keras.layers.Layer` subclass.
        kind: its kind, or a function of the layer where the kind depends on its configuration.
    """
    KINDS[layer_type] = kind if callable(kind) and not isinstance(kind, OpKind) else lambda _: OpKind(kind)

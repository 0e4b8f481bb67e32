"""What a model's inputs are called."""

from typing import Any


def input_names(model: Any) -> tuple[str, ...]:
    """The names of a model's inputs, in the order of `model.inputs`: those of their layers, as in the graph.

    The tensor of an input that wasn't named has a name of its own, such as "keras_tensor_7", which nobody knows.

    Args:
        model: Functional or Sequential, built.

    Example:
        >>> import keras
        >>> x = keras.Input((4,), name="image")
        >>> input_names(keras.Model(x, keras.layers.ReLU()(x)))
        ('image',)
    """
    return tuple(tensor._keras_history.operation.name for tensor in model.inputs)  # noqa: SLF001

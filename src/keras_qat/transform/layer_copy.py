"""A copy of a layer with its weights, for a model beside the one that the layer belongs to."""

from typing import Any

from keras import ops


class LayerCopy:
    """A copy of a layer with its weights, which are there once it is built by its first call.

    Args:
        layer: what to copy. It is not changed.
        name: of the copy.
        linear: without the layer's own activation and bias: W x alone.
        weights_of: the layer whose weights it gets; `layer` itself if not given.

    Example:
        >>> import keras
        >>> dense = keras.layers.Dense(2, activation="relu", bias_initializer="ones", kernel_initializer="ones")
        >>> _ = dense(keras.Input((3,)))
        >>> LayerCopy(dense, "copy", linear=True)(ops.array([[-1.0, 0.0, -1.0]])).numpy().tolist()
        [[-2.0, -2.0]]
    """

    def __init__(self, layer: Any, name: str, *, linear: bool = False, weights_of: Any = None) -> None:
        config = {**layer.get_config(), "name": name}
        if linear and "activation" in config:
            config["activation"] = None
        self._copy, self._linear = type(layer).from_config(config), linear
        self._source, self._loaded = layer if weights_of is None else weights_of, False

    def __call__(self, x: Any) -> Any:
        """The output of the copy."""
        if not self._loaded:
            self._load(tuple(x.shape))
        return self._copy(x)

    def _load(self, input_shape: tuple[int | None, ...]) -> None:
        self._loaded = True
        self._copy.build(input_shape)
        self._copy.set_weights(self._source.get_weights())
        bias = getattr(self._copy, "bias", None)
        if self._linear and bias is not None:
            bias.assign(ops.zeros(bias.shape, bias.dtype))

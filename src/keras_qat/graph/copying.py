"""New layers with the settings of others, without serializing the functions and objects among the settings.

Keras copies a layer by its configuration, in which every function, regularizer or constraint is text, and reads only
those back that are registered. A user's own are rarely registered, so the copy is given the objects themselves.
"""

from inspect import Parameter, signature
from typing import Any

import keras
from keras.src.utils.python_utils import is_default  # marks the `get_config` that a class didn't define


def layer_settings(layer: Any, layer_type: type | None = None) -> dict[str, Any]:
    """The arguments that make another layer with the settings of `layer`.

    Args:
        layer: a Keras layer. It is not changed.
        layer_type: the class whose arguments are wanted, `type(layer)` or one of its base classes.

    Returns:
        The configuration, with functions, initializers, regularizers and constraints as the objects that the layer has.

    Raises:
        NotImplementedError: If the class has no `get_config` that fits its arguments.

    Example:
        >>> halve = lambda x: x / 2
        >>> layer_settings(keras.layers.Dense(2, activation=halve))["activation"] is halve
        True
    """
    wanted: Any = type(layer) if layer_type is None else layer_type
    held = {key: value for key, value in vars(layer).items() if _is_code(value)}
    # `get_config` reads a stand-in that has a function of Keras in place of each, which Keras can serialize.
    bare = object.__new__(wanted)
    vars(bare).update({**vars(layer), **dict.fromkeys(held, keras.activations.linear)})
    config: dict[str, Any] = _common_settings(layer) if _has_no_settings(wanted) else wanted.get_config(bare)
    objects = {key: held[key] for key in config if key in held}
    policy = {"dtype": _policy(layer)} if "dtype" in config else {}
    return {**config, **objects, **policy}


def copy_by_settings(layer: Any, layer_type: type | None = None, **changed: Any) -> Any:
    """A new layer with the settings of `layer`, not built yet.

    Args:
        layer: a Keras layer. It is not changed.
        layer_type: the class of the new layer, as for `layer_settings`.
        **changed: arguments that differ, such as `name`.

    Raises:
        Exception: Whatever the class raises if it can't be made from its own configuration.

    Example:
        >>> copy_by_settings(keras.layers.Dense(2, activation=lambda x: x / 2), name="copy")
        <Dense name=copy, built=False>
    """
    wanted: Any = type(layer) if layer_type is None else layer_type
    return wanted.from_config({**layer_settings(layer, wanted), **changed})


def _has_no_settings(layer_type: Any) -> bool:
    """Whether a class takes the arguments of every layer only; Keras refuses some of those in its automatic configs."""
    parameters = list(signature(layer_type.__init__).parameters.values())[1:]
    return [parameter.kind for parameter in parameters] == [Parameter.VAR_KEYWORD] and is_default(layer_type.get_config)


def _common_settings(layer: Any) -> dict[str, Any]:
    return {"name": layer.name, "trainable": layer.trainable, "dtype": _policy(layer)}


def _policy(layer: Any) -> Any:
    """The dtype policy of a layer, by its name where that says all.

    A class without a `get_config`, such as ELU, can make settings of names and numbers only, so that a copy that was
    given the policy itself could not be copied again.
    """
    policy = layer.dtype_policy
    return policy.name if type(policy) is keras.dtype_policies.DTypePolicy else policy


def _is_code(value: Any) -> bool:
    return callable(value) and not isinstance(value, keras.layers.Layer)

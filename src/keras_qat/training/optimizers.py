"""Optimizers by name, for recipes and the command line."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import keras

from keras_qat.errors import UserError

DEFAULT_OPTIMIZER = "sgd-momentum"

OPTIMIZERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "sgd-momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
        "sgd": keras.optimizers.SGD,
        "adam": keras.optimizers.Adam,
    }
)
"""Name → factory from a learning rate (a number or a schedule)."""


def require_optimizer(name: str) -> None:
    """Refuse a name that `OPTIMIZERS` lacks.

    Raises:
        UserError: the name is unknown; the message lists the known ones.
    """
    if name not in OPTIMIZERS:
        raise UserError(f"Unknown optimizer. Received: {name!r}. Use one of: {', '.join(OPTIMIZERS)}.")


def make_optimizer(name: str, learning_rate: Any) -> keras.optimizers.Optimizer:
    """Make a fresh optimizer.

    Args:
        name: a key of `OPTIMIZERS`.
        learning_rate: a number, or a `LearningRateSchedule`.

    Raises:
        UserError: the name is unknown.

    Example:
        >>> make_optimizer("sgd-momentum", 0.001).momentum
        0.9
    """
    require_optimizer(name)
    return OPTIMIZERS[name](learning_rate)

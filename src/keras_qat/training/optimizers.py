"""Optimizers by name, for recipes and the command line."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import keras

from keras_qat.errors import UserError

DEFAULT_OPTIMIZER = "adam"

OPTIMIZERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "sgd-momentum": lambda rate, **options: keras.optimizers.SGD(rate, momentum=0.9, **options),
        "sgd": keras.optimizers.SGD,
        "adam": keras.optimizers.Adam,
    }
)
"""Name → factory from a learning rate (a number or a schedule) and the options that all of Keras's optimizers share."""


def require_optimizer(name: str) -> None:
    """Refuse a name that `OPTIMIZERS` lacks.

    Raises:
        UserError: the name is unknown; the message lists the known ones.
    """
    if name not in OPTIMIZERS:
        raise UserError(f"Unknown optimizer. Received: {name!r}. Use one of: {', '.join(OPTIMIZERS)}.")


def make_optimizer(
    name: str,
    learning_rate: Any,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    accumulate: int = 1,
) -> keras.optimizers.Optimizer:
    """Make a fresh optimizer.

    Args:
        name: a key of `OPTIMIZERS`.
        learning_rate: a number, or a `LearningRateSchedule`.
        weight_decay: decoupled weight decay; see `build_optimizer` for what it pulls on.
        clip_norm: the most that the norm of all gradients together may be.
        accumulate: steps whose gradients are averaged before the weights move.

    Raises:
        UserError: the name is unknown.

    Example:
        >>> make_optimizer("sgd-momentum", 0.001).momentum
        0.9
    """
    require_optimizer(name)
    return OPTIMIZERS[name](
        learning_rate,
        weight_decay=weight_decay or None,
        global_clipnorm=clip_norm,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
        name="optimizer",  # a name of our own, so that its variables' paths are the same in every process
    )


def build_optimizer(optimizer: keras.optimizers.Optimizer, variables: Iterable[Any]) -> None:
    """Make the optimizer's variables; weight decay pulls on kernels alone.

    Biases, the scales and offsets of batch norms, and ranges have one axis or none; to pull them to zero would change
    what the network computes, not how large its weights are.
    """
    variables = list(variables)
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])  # noqa: PLR2004
    optimizer.build(variables)

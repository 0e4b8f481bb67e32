"""The exceptions that keras-qat raises, by what the caller can do about them, and the checks of numbers of options.

Every message says what failed, what was `Received: …`, and what to do. The command line turns a `UserError` into
exit code 2 and a `GateMissedError` into exit code 3; any other exception is a bug in keras-qat.
"""

import math
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, get_args

MANY = 2**31 - 1
"""The largest number that options accept if nothing else limits them, and the largest seed of all random generators."""

MOST_IMAGES_AT_ONCE = 2**16
"""The largest batch. A number above it is a typing error, and the arrays of such a batch would fill the memory."""

MOST_THREADS = 1024
"""The most threads that one engine or one program is asked to start."""

Bounds = tuple[int, int]
"""The smallest and the largest value of a whole number."""


class KerasQATError(Exception):
    """Base class of every error that keras-qat raises on purpose."""


class UserError(KerasQATError):
    """The input or the settings are wrong, and the user can correct them."""


class UnsupportedModelError(UserError):
    """The model, or one of its layers, can't be read, quantized or exported by keras-qat."""


class DataError(UserError):
    """The images or labels can't be read or don't fit the model."""


class BrokenImageError(DataError):
    """A single image, or the record that holds it, is broken or not an image; a caller may leave it out and go on."""


class WeightsError(UserError):
    """The weights are missing, truncated, not finite, or those of another model."""


class StorageError(UserError):
    """A file or folder can't be read or written."""


class GateMissedError(KerasQATError):
    """The work was done, but its result failed a check, such as a deployed file that differs from the simulation."""


def require_seed(seed: int) -> None:
    """Check that every random generator accepts a seed.

    Args:
        seed: the seed of shuffling, augmentation or random inputs.

    Raises:
        UserError: If the seed is not from 0 to 2³¹ - 1.

    Example:
        >>> require_seed(42)
        >>> require_seed(-1)
        Traceback (most recent call last):
        keras_qat.errors.UserError: `seed` must be a whole number from 0 to 2³¹ - 1. Received: seed=-1. Choose another.
    """
    if not _is_whole(seed) or not 0 <= seed <= MANY:
        raise UserError(
            f"`seed` must be a whole number from 0 to 2³¹ - 1. Received: seed={_shown(seed)}. Choose another."
        )


def require_whole(name: str, value: Any, least: int = 1, most: int = MANY) -> int:
    """Check a whole number of the user's: a number of images, threads or epochs.

    Args:
        name: the name of the option.
        value: what was given. An integer of NumPy counts as one; `True`, `1.0` and `"1"` do not.
        least: the smallest allowed value.
        most: the largest allowed value.

    Returns:
        The value as an `int`.

    Raises:
        UserError: If the value is not a whole number from `least` to `most`.

    Example:
        >>> require_whole("batch_size", 32)
        32
        >>> require_whole("batch_size", 1.5)
        Traceback (most recent call last):
        keras_qat.errors.UserError: `batch_size` must be a whole number. Received: 1.5. Give a number such as 1.
    """
    if not _is_whole(value):
        raise UserError(
            f"`{name}` must be a whole number. Received: {_shown(value)}. Give a number such as {max(least, 1)}."
        )
    if value < least:
        raise UserError(f"`{name}` must be at least {least}. Received: {_shown(value)}. Give a larger number.")
    if value > most:
        raise UserError(f"`{name}` must be at most {most}. Received: {_shown(value)}. Give a smaller number.")
    return int(value)


def require_number(name: str, value: Any) -> float:
    """Check that an option of the user's is a number, whole or not. NaN and infinity are numbers here.

    Args:
        name: the name of the option.
        value: what was given. A number of NumPy counts as one; `True` and `"1"` do not.

    Returns:
        The value as a `float`.

    Raises:
        UserError: If the value is not a number.

    Example:
        >>> require_number("learning_rate", 1)
        1.0
    """
    if not is_number(value):
        raise UserError(f"`{name}` must be a number. Received: {_shown(value)}. Give a number such as 0.5.")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def settle_numbers(options: Any, **bounds: Bounds) -> None:
    """Check all numbers among the options of a frozen dataclass, by the declared types of its fields.

    A class of options calls this first in its `__post_init__`. Each field that is declared `int` or `int | None` must
    hold a whole number, and each that is declared `float` or `float | None` a number. Numbers of NumPy become Python's,
    which JSON can hold: that is the one write that a frozen value needs.

    Args:
        options: the value that is being made.
        bounds: the smallest and the largest value of whole numbers by the names of their fields, where they are others
            than 1 and `MANY`.

    Raises:
        UserError: If a field holds something else, or a whole number is out of its bounds.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Options:
        ...     threads: int | None = None
        ...     def __post_init__(self) -> None:
        ...         settle_numbers(self, threads=(1, MOST_THREADS))
        >>> Options(True)
        Traceback (most recent call last):
        keras_qat.errors.UserError: `threads` must be a whole number. Received: True. Give a number such as 1.
    """
    for field in fields(options):
        value, kinds = getattr(options, field.name), get_args(field.type) or (field.type,)
        if value is None and NoneType in kinds:
            continue
        if int in kinds:
            settled: float = require_whole(field.name, value, *bounds.get(field.name, ()))
        elif float in kinds:
            settled = require_number(field.name, value)
        else:
            continue
        object.__setattr__(options, field.name, settled)


def is_number(value: Any) -> bool:
    """Whether a value is a number, of NumPy, too, and not a boolean.

    Example:
        >>> is_number(0.5), is_number(True), is_number("1")
        (True, False, False)
    """
    return isinstance(value, Real) and not _is_boolean(value)


def _is_boolean(value: Any) -> bool:
    """Whether a value is one of Python's booleans, which Python counts as integers, and users don't."""
    return isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    """Whether a value is an integer, of NumPy or another library, too."""
    return isinstance(value, Integral) and not _is_boolean(value)


def _shown(value: Any) -> str:
    """A value as a message quotes it. Python refuses to write an integer of more than 4300 digits."""
    if _is_whole(value) and abs(int(value)) >= 10**18:
        return f"an integer of {int(value).bit_length()} bits"
    return repr(value.item() if hasattr(value, "item") and not getattr(value, "shape", ()) else value)[:200]

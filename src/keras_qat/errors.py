"""The exceptions that keras-qat raises, by what the caller can do about them.

Every message says what failed, what was `Received: …`, and what to do. The command line turns a `UserError` into
exit code 2 and a `GateMissedError` into exit code 3; any other exception is a bug in keras-qat.
"""

_SEEDS = 2**31
"""Number of seeds that all random generators of a run accept."""


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
        keras_qat.errors.UserError: `seed` must be from 0 to 2³¹ - 1. Received: seed=-1. Choose another.
    """
    if not 0 <= seed < _SEEDS:
        raise UserError(f"`seed` must be from 0 to 2³¹ - 1. Received: seed={seed}. Choose another.")

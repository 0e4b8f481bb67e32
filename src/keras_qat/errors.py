"""The exceptions of keras-qat: a handful, each for one kind of reader.

Every message says what failed, what was `Received: …`, and what to do. The command line turns a `UserError` into
exit code 2 and a `GateMissedError` into exit code 3; anything else is a bug in keras-qat.

Which seeds there are.
"""


class KerasQATError(Exception):
    """Base class of every error that keras-qat raises on purpose."""


class UserError(KerasQATError):
    """The input or the settings are wrong, and the user can mend it."""


class UnsupportedModelError(UserError):
    """The model, or a layer of it, is one that keras-qat can't read, quantize or export."""


class DataError(UserError):
    """The images or labels can't be read or don't fit the model."""


class BrokenImageError(DataError):
    """One image among many, or the record that holds it, is broken or none: the others could do without."""


class WeightsError(UserError):
    """The weights are missing, truncated, of another model, or not finite."""


class StorageError(UserError):
    """A file or folder can't be read or written."""


class GateMissedError(KerasQATError):
    """Everything ran, but a promise was not kept: the deployed file differs from the simulation."""


_SEEDS = 2**31


def require_seed(seed: int) -> None:
    """Refuse a seed that not every generator takes.

    Raises:
        UserError: it isn't from 0 to 2³¹ - 1.
    """
    if not 0 <= seed < _SEEDS:
        raise UserError(f"`seed` must be from 0 to 2³¹ - 1. Received: seed={seed}. Choose another.")

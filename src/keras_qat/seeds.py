"""Which seeds there are."""

from keras_qat.errors import UserError

_SEEDS = 2**31


def require_seed(seed: int) -> None:
    """Refuse a seed that not every generator takes.

    Raises:
        UserError: it isn't from 0 to 2³¹ - 1.
    """
    if not 0 <= seed < _SEEDS:
        raise UserError(f"`seed` must be from 0 to 2³¹ - 1. Received: seed={seed}. Choose another.")

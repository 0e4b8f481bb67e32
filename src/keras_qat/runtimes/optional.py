"""Import what not every user has installed."""

import importlib
from types import ModuleType

from keras_qat.errors import UserError


def import_optional(module: str, *, title: str, install: str) -> ModuleType:
    """The module, or an error that says how to get it.

    Args:
        module: its dotted name.
        title: what users call it.
        install: the arguments of `pip install`.

    Raises:
        UserError: it isn't installed, or doesn't load.

    Example:
        >>> import_optional("json", title="JSON", install="json").dumps([])
        '[]'
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        # OSError: the Python package is there, a shared library that it loads isn't.
        raise UserError(
            f"{title} is not installed, or doesn't load. Received: {error}. Install it: pip install {install}"
        ) from error

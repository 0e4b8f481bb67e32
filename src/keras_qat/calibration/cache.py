"""Ranges that were computed before are read, not computed again.

A file is named after a SHA-256 of everything that its ranges come from: the model's structure and weights, the
placement's tensors and integers, the data, the method, and the versions of keras-qat and Keras. The structure is the
model's configuration: with the names of its layers, since the ranges are named after them, but without its own name,
which Keras counts up within a session. The *code* of a layer isn't part of it: after a change in `call` of a layer of
your own, calibrate without the cache.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import platformdirs

from keras_qat._version import __version__
from keras_qat.calibration.ranges import Ranges
from keras_qat.errors import UserError
from keras_qat.types import Placement

_logger = logging.getLogger(__name__)


_COUNTING = 3
"""Raise it whenever the same images may give other ranges, or more is kept of them."""


def cache_folder() -> Path:
    """Where the ranges are kept, for this user."""
    return Path(platformdirs.user_cache_path("keras-qat")) / "ranges"


def ranges_key(model: Any, placement: Placement, data_description: Any, method: str, images: int | None) -> str:
    """What names the ranges of one calibration: another key wherever they may differ.

    Args:
        model: the float model.
        placement: from `plan`.
        data_description: what chooses the images and their batches, as JSON can hold it; `digest` makes a word of
            the images themselves.
        method: the calibration method.
        images: how many images, or `None` for all.

    Returns:
        64 hexadecimal digits.
    """
    config = {key: value for key, value in model.get_config().items() if key != "name"}
    recipe = {
        "model": [type(model).__name__, config],
        "weights": digest(keras.ops.convert_to_numpy(weight) for weight in model.weights),
        "sources": placement.sources,
        "specs": {name: asdict(spec) for name, spec in placement.specs.items()},
        "data": data_description,
        "method": method,
        "images": images,
        "versions": [_COUNTING, __version__, keras.version(), keras.backend.backend()],
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, default=repr).encode()).hexdigest()


def digest(arrays: Iterable[np.ndarray]) -> str:
    """A SHA-256 of the numbers, types and shapes of arrays: 64 hexadecimal digits.

    Example:
        >>> digest([np.zeros(4)]) == digest([np.zeros((2, 2))])
        False
    """
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype} {array.shape};".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def cached_ranges(key: str, compute: Callable[[], Ranges], *, folder: Path | None = None) -> Ranges:
    """The ranges of `key`, from the cache if they are there, else computed and put there.

    A file that can't be read is computed again; a folder that can't be written costs a warning.

    Args:
        key: from `ranges_key`.
        compute: what makes the ranges.
        folder: of the cache; `cache_folder()` if not given.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> cached_ranges("a", Ranges, folder=folder) == cached_ranges("a", lambda: 1 / 0, folder=folder)
        True
    """
    path = (folder or cache_folder()) / f"{key}.json"
    try:
        ranges = Ranges.load(path) if path.exists() else None
    except (OSError, UserError) as error:
        _logger.warning("The cached ranges can't be read (%s); calibrating again.", error)
        ranges = None
    if ranges is not None:
        _logger.info("ranges from the cache: %s", path)
        return ranges
    ranges = compute()
    try:
        ranges.save(path)
    except UserError as error:
        _logger.warning("The ranges aren't cached: %s", error)
    return ranges

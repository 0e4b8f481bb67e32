"""The ranges of a calibration as one frozen value that can be saved, read back, compared and cached.

A file of the cache is named after a SHA-256 of everything that its ranges come from: the model's structure and weights,
the placement's tensors and integers, the data, the method, and the versions of keras-qat and Keras. The structure is
the model's configuration: with the names of its layers, since the ranges are named after them, but without its own
name, which Keras counts up within a session. The *code* of a layer isn't part of it: after a change in `call` of a
custom layer, calibrate without the cache.
"""

import hashlib
import json
import logging
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import platformdirs

from keras_qat._version import __version__
from keras_qat.errors import UserError, require_whole
from keras_qat.files import from_json_value, is_there, read_json, to_json_value, waiting_lock, write_json
from keras_qat.placement import require_ranges
from keras_qat.types import Placement, TensorRange

_FORMAT: Literal["keras-qat ranges"] = "keras-qat ranges"

_COUNTING = 3
"""Raise it whenever the same images may give other ranges, or more is kept of them."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Ranges(Mapping[str, TensorRange]):
    """A mapping {tensor name: its range}, in graph order; equal to any mapping of the same items.

    Args:
        tensors: the range of each tensor. It is copied.

    Example:
        >>> ranges = Ranges({"relu": TensorRange(amax=6.0, method="mse", images=256)})
        >>> ranges["relu"].amax, len(ranges)
        (6.0, 1)
    """

    tensors: Mapping[str, TensorRange] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Copy the mapping, which the caller may change."""
        object.__setattr__(self, "tensors", dict(self.tensors))

    def __getitem__(self, name: str) -> TensorRange:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def save(self, path: str | Path) -> None:
        """Write the ranges to a JSON file; `load` gives back the same to the last bit.

        Raises:
            StorageError: If `path` can't be written.
        """
        write_json(Path(path), to_json_value(_RangesFile(_FORMAT, 1, self.tensors)))

    @classmethod
    def load(cls, path: str | Path) -> "Ranges":
        """Read a file that `save` or `keras-qat run` wrote.

        Raises:
            StorageError: If `path` can't be read.
            UserError: If the file isn't JSON, doesn't hold ranges, or holds those of another version of the format.
        """
        value = read_json(Path(path))
        problem = f"{path} doesn't hold ranges"
        remedy = "Give the ranges.json of `keras-qat run` or a file of `Ranges.save`, or calibrate again."
        read = partial(from_json_value, problem=problem, remedy=remedy)
        # Files from before there was a format are {tensor: range}.
        has_format = isinstance(value, dict) and value.get("format") == _FORMAT
        tensors = read(_RangesFile, value).tensors if has_format else read(dict[str, TensorRange], value)
        for name, tensor_range in tensors.items():
            if not 0 <= tensor_range.amax < math.inf or tensor_range.images < 0:
                raise UserError(
                    f"{problem}: the range of {name!r} must have a finite `amax` and a count of `images`, neither "
                    f"negative. Received: {tensor_range}. {remedy}"
                )
        return cls(tensors)

    def diff(self, other: Mapping[str, TensorRange]) -> "RangesDiff":
        """Compare these ranges with others, such as those of other images or another method.

        Example:
            >>> mse, entropy = (Ranges({"relu": TensorRange(amax, "mse", 8)}) for amax in (2.0, 3.0))
            >>> mse.diff(entropy).changes[0].ratio
            1.5
        """
        changes = [RangeChange(name, self[name], other[name]) for name in self if name in other]
        return RangesDiff(
            tuple(name for name in self if name not in other),
            tuple(name for name in other if name not in self),
            tuple(sorted(changes, key=lambda change: -change.distance)),
        )

    def require_for(self, placement: Placement) -> None:
        """Check that each quantized tensor of a placement has a range.

        Raises:
            UserError: If some have none; the message names the first of them.
        """
        require_ranges(placement, self)


@dataclass(frozen=True)
class _RangesFile:
    """The content of a file of `Ranges.save`."""

    format: Literal["keras-qat ranges"]
    version: Literal[1]
    tensors: Mapping[str, TensorRange]


@dataclass(frozen=True)
class RangeChange:
    """A tensor that two sets of ranges have in common.

    Args:
        tensor: its name.
        before: its range in the first set.
        after: its range in the second set.
    """

    tensor: str
    before: TensorRange
    after: TensorRange

    @property
    def ratio(self) -> float:
        """Second amax over the first: 1 if both are 0, infinite if only the first is."""
        if self.before.amax == self.after.amax:
            return 1.0
        return self.after.amax / self.before.amax if self.before.amax else math.inf

    @property
    def distance(self) -> float:
        """|log ratio|: twice and half are equally far; infinite if one range is 0."""
        return abs(math.log(self.ratio)) if self.ratio else math.inf


@dataclass(frozen=True)
class RangesDiff:
    """What differs between two sets of ranges; `str()` is the whole table.

    Args:
        only_before: tensors that only the first has, in its order.
        only_after: tensors that only the second has, in its order.
        changes: the tensors that both have, the largest |log ratio| of amax first.
    """

    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    changes: tuple[RangeChange, ...]

    def __str__(self) -> str:
        """The whole table."""
        return self.describe()

    def describe(self, worst: int | None = None) -> str:
        """A Markdown table of the tensors that both have, and a line for those that only one has.

        Args:
            worst: the number of rows; all if not given.

        Raises:
            UserError: If `worst` isn't a whole number of at least 1.
        """
        if worst is not None:
            require_whole("worst", worst)
        rows = [
            f"| {change.tensor} | {change.before.amax:.4g} | {change.after.amax:.4g} | {change.ratio:.4g} | "
            f"{' → '.join(dict.fromkeys((change.before.method, change.after.method)))} |"
            for change in self.changes[:worst]
        ]
        left_out = len(self.changes) - len(rows)
        notes = [f"\n{left_out} more tensors differ less."] if left_out else []
        for side, names in (("before", self.only_before), ("after", self.only_after)):
            notes += [f"\nOnly {side}: {', '.join(names)}."] if names else []
        header = ["| tensor | amax before | amax after | ratio | method |", "| --- | --- | --- | --- | --- |"]
        return "\n".join([*header, *rows, *notes])


def cached_ranges(key: str, compute: Callable[[], Ranges], *, folder: Path | None = None) -> Ranges:
    """Return the ranges of `key` from the cache, or compute them and put them there.

    A file that can't be read is computed again. If the folder can't be written, a warning is logged.

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
    with waiting_lock(path, _logger.info):
        try:
            ranges = Ranges.load(path) if is_there(path) else None
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


def cache_folder() -> Path:
    """The folder of this user's cached ranges."""
    return Path(platformdirs.user_cache_path("keras-qat")) / "ranges"


def ranges_key(model: Any, placement: Placement, data_description: Any, method: str, images: int | None) -> str:
    """The name of the ranges of one calibration in the cache: another key wherever they may differ.

    Args:
        model: the float model.
        placement: from `plan`.
        data_description: what chooses the images and their batches, as JSON can hold it; of the images themselves, take
            their `digest`.
        method: the calibration method.
        images: the number of images, or `None` for all.

    Returns:
        64 hexadecimal digits.
    """
    try:
        config: Any = {key: value for key, value in model.get_config().items() if key != "name"}
    except Exception:  # noqa: BLE001 - code of the user's own, which Keras can't serialize, raises anything
        config = (
            uuid.uuid4().hex
        )  # nothing tells such a model from another, so its ranges are never taken from the cache
    recipe = {
        "model": [type(model).__name__, config],
        "weights": digest(keras.ops.convert_to_numpy(weight) for weight in model.weights),
        "sources": placement.sources,
        "specs": to_json_value(placement.specs),
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
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(f"{array.dtype} {array.shape};".encode())
        sha256.update(np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()

"""How two calibrations of a model differ, tensor by tensor, the largest difference first.

The ranges of a calibration as one frozen value, which is saved, read back and compared.

Ranges that were computed before are read, not computed again.

A file is named after a SHA-256 of everything that its ranges come from: the model's structure and weights, the
placement's tensors and integers, the data, the method, and the versions of keras-qat and Keras. The structure is the
model's configuration: with the names of its layers, since the ranges are named after them, but without its own name,
which Keras counts up within a session. The *code* of a layer isn't part of it: after a change in `call` of a layer of
your own, calibrate without the cache.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import platformdirs

from keras_qat._version import __version__
from keras_qat.errors import UserError
from keras_qat.files import read_json, write_json
from keras_qat.placement import require_ranges
from keras_qat.types import Placement, TensorRange


@dataclass(frozen=True)
class RangeChange:
    """One tensor that both have.

    Args:
        tensor: its name.
        before: its range in the first.
        after: its range in the second.
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
            worst: how many rows; all if not given.
        """
        rows = [
            f"| {c.tensor} | {c.before.amax:.4g} | {c.after.amax:.4g} | {c.ratio:.4g} | {_methods(c)} |"
            for c in self.changes[:worst]
        ]
        left_out = len(self.changes) - len(rows)
        lines = ["| tensor | amax before | amax after | ratio | method |", "| --- | --- | --- | --- | --- |", *rows]
        notes = [
            f"{left_out} more tensors differ less." if left_out else "",
            _only("before", self.only_before),
            _only("after", self.only_after),
        ]
        return "\n".join([*lines, *(f"\n{note}" for note in notes if note)])


def diff_ranges(before: Mapping[str, TensorRange], after: Mapping[str, TensorRange]) -> RangesDiff:
    """Compare two sets of ranges.

    Args:
        before: from `calibrate`.
        after: from another `calibrate`, as of other images or another method.

    Example:
        >>> one, two = ({"relu": TensorRange(amax, "mse", 8)} for amax in (2.0, 3.0))
        >>> diff_ranges(one, two).changes[0].ratio
        1.5
    """
    changes = [RangeChange(name, before[name], after[name]) for name in before if name in after]
    return RangesDiff(
        tuple(name for name in before if name not in after),
        tuple(name for name in after if name not in before),
        tuple(sorted(changes, key=lambda change: -change.distance)),
    )


def _methods(change: RangeChange) -> str:
    return " → ".join(dict.fromkeys((change.before.method, change.after.method)))


def _only(where: str, names: tuple[str, ...]) -> str:
    return f"Only {where}: {', '.join(names)}." if names else ""


_FORMAT = "keras-qat ranges"
_VERSION = 1


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
        """Keep a copy of our own."""
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
            StorageError: `path` can't be written.
        """
        tensors = {name: asdict(one) for name, one in self.tensors.items()}
        write_json(Path(path), {"format": _FORMAT, "version": _VERSION, "tensors": tensors})

    @classmethod
    def load(cls, path: str | Path) -> "Ranges":
        """The ranges of a file that `save`, or `keras-qat run`, wrote.

        Raises:
            StorageError: `path` can't be read.
            UserError: it isn't JSON, doesn't hold ranges, or those of another version of the format.
        """
        value = read_json(Path(path))
        try:
            return cls({name: _read_range(name, fields) for name, fields in _tensors_of(value).items()})
        except _UnreadableError as error:
            raise UserError(
                f"{path} doesn't hold ranges: {error}. Received: {str(path)!r}. Give the ranges.json of "
                "`keras-qat run` or a file of `Ranges.save`, or calibrate again."
            ) from error

    def diff(self, other: Mapping[str, TensorRange]) -> RangesDiff:
        """How `other` differs from these ranges, the largest ratio of amax first."""
        return diff_ranges(self, other)

    def require_for(self, placement: Placement) -> None:
        """Prove that there is a range for each quantized tensor of a placement.

        Raises:
            UserError: there is none for some; the first are named.
        """
        require_ranges(placement, self)


class _UnreadableError(Exception):
    """What is wrong with the content of a file."""


def _tensors_of(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _UnreadableError(f"it is a JSON {type(value).__name__}, not an object")
    if value.get("format") != _FORMAT:
        return value  # Files without a format, from before there was one, are {tensor: range}.
    if value.get("version") != _VERSION:
        raise _UnreadableError(f"its version is {value.get('version')!r}, and this keras-qat reads {_VERSION}")
    tensors = value.get("tensors")
    if not isinstance(tensors, dict):
        raise _UnreadableError('it has no object "tensors"')
    return tensors


def _read_range(name: str, fields: Any) -> TensorRange:
    optional = {"summary", "histogram"}
    known = {"amax", "method", "images"}
    if not isinstance(fields, dict) or not known <= fields.keys() <= known | optional:
        raise _UnreadableError(
            f'{name!r} is not an object of "amax", "method", "images" and perhaps "summary" and "histogram"'
        )
    amax, method, images = fields["amax"], fields["method"], fields["images"]
    summary, histogram = fields.get("summary"), fields.get("histogram")
    if not _is_number(amax) or not math.isfinite(amax) or amax < 0:
        raise _UnreadableError(f'"amax" of {name!r} is {amax!r}, not a finite number from 0')
    if not isinstance(method, str):
        raise _UnreadableError(f'"method" of {name!r} is {method!r}, not a name')
    if not isinstance(images, int) or isinstance(images, bool) or images < 0:
        raise _UnreadableError(f'"images" of {name!r} is {images!r}, not a count')
    if summary is not None and not (isinstance(summary, dict) and all(map(_is_number, summary.values()))):
        raise _UnreadableError(f'"summary" of {name!r} is {summary!r}, not an object of numbers')
    if histogram is not None and not (isinstance(histogram, list) and all(map(_is_number, histogram))):
        raise _UnreadableError(f'"histogram" of {name!r} is {histogram!r}, not a list of numbers')
    return TensorRange(float(amax), method, images, summary, None if histogram is None else tuple(histogram))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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

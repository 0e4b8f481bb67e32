"""The ranges of a calibration as one frozen value, which is saved, read back and compared."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from keras_qat.calibration.ranges_diff import RangesDiff, diff_ranges
from keras_qat.errors import UserError
from keras_qat.placement.describe import require_ranges
from keras_qat.storage import read_json, write_json
from keras_qat.types import Placement, TensorRange

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

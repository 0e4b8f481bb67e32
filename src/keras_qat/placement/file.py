"""A placement as a JSON file: what verification and the report read back, without the float model."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_qat.errors import UserError
from keras_qat.files import read_json, write_json
from keras_qat.types import EdgeDecision, Kernel, OpKind, Placement, QuantizedTensor, QuantSpec, WeightDecision

PLACEMENT_FILE = "placement.json"
"""What a run calls it."""

_FORMAT = "keras-qat placement"
_VERSION = 1


def save_placement(placement: Placement, path: str | Path) -> None:
    """Write a placement; `load_placement` gives back an equal one.

    Raises:
        StorageError: `path` can't be written.
    """
    write_json(Path(path), placement_dict(placement))


def placement_dict(placement: Placement) -> dict[str, Any]:
    """A placement as such a file holds it."""
    return {"format": _FORMAT, "version": _VERSION, **asdict(placement)}


def load_placement(path: str | Path) -> Placement:
    """The placement of a file that `save_placement`, or `keras-qat run`, wrote.

    Raises:
        StorageError: `path` can't be read.
        UserError: it isn't JSON, doesn't hold a placement, or one of another version of the format.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "placement.json"
        >>> edge = EdgeDecision("image", "conv", 0, quantized=False, reason="the first layer")
        >>> save_placement(Placement("tensorrt", (), (edge,), ()), path)
        >>> load_placement(path).edges == (edge,)
        True
    """
    value = read_json(Path(path))
    if not isinstance(value, dict) or (value.get("format"), value.get("version")) != (_FORMAT, _VERSION):
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise _unreadable(path, f"its format is {found!r}, and {_FORMAT!r} of version {_VERSION} is read")
    try:
        return _placement(value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def _placement(value: Mapping[str, Any]) -> Placement:
    return Placement(
        target=str(value["target"]),
        tensors=tuple(
            QuantizedTensor(**{**one, "spec": QuantSpec(**one["spec"]), "joined": tuple(one["joined"])})
            for one in value["tensors"]
        ),
        edges=tuple(EdgeDecision(**one) for one in value["edges"]),
        weights=tuple(
            WeightDecision(**{**one, "spec": None if one["spec"] is None else QuantSpec(**one["spec"])})
            for one in value["weights"]
        ),
        kernels=tuple(Kernel(tuple(one["nodes"]), tuple(map(OpKind, one["kinds"]))) for one in value["kernels"]),
    )


def _unreadable(path: str | Path, problem: str) -> UserError:
    return UserError(
        f"{path} doesn't hold a placement: {problem}. Received: {str(path)!r}. Give the placement.json that "
        "`keras-qat run` of this version wrote."
    )

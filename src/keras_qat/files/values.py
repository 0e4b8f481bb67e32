"""Frozen values as JSON holds them, and strictly typed values from what JSON holds.

A value is written by what it is and read by what its class declares: each field of a dataclass by its annotation.
Reading is strict. JSON that was edited by hand or written by another version is refused at the first field that
differs, not converted: neither `"3"`, `3.5` nor `true` is an integer.

cattrs (https://catt.rs) reads dataclasses, mappings and tuples, and records where an error is. By itself it converts
(`int("3")`) and iterates over anything (a string is a list of characters); the hooks of this module refuse both.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum, EnumMeta
from functools import partial, reduce
from operator import getitem
from pathlib import Path, PurePath
from reprlib import Repr
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from keras_qat.errors import UserError

T = TypeVar("T")

_SCALARS: Mapping[Any, tuple[tuple[type, ...], str]] = {
    str: ((str,), "a string"),
    bool: ((bool,), "true or false"),
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
    Path: ((str, PurePath), "a path"),
    NoneType: ((NoneType,), "null"),
}
"""{declared type: (types of the values that it is read from, what a message calls it)}."""

_INFINITIES = ("inf", "-inf")
"""JSON has no infinite numbers; `Diagnosis.to_dict` writes these strings for them."""

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 200


def to_json_value(value: Any) -> Any:
    """Return `value` as `json` can write it.

    Args:
        value: a dataclass, a mapping, a list or tuple, an enum, a path, a NumPy scalar or array, or what JSON has a
            type for; nested to any depth. Infinite numbers and NaN stay; `to_json` writes null for them.

    Example:
        >>> from keras_qat.types import Kernel, OpKind
        >>> to_json_value(Kernel(("conv", "relu"), (OpKind.CONV, OpKind.RELU)))
        {'nodes': ['conv', 'relu'], 'kinds': ['conv', 'relu']}
        >>> to_json_value({"folder": Path("runs")})
        {'folder': 'runs'}
    """
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {to_json_value(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PurePath):
        return str(value)
    # NumPy's scalars and arrays, without an import of NumPy.
    return value.tolist() if hasattr(value, "tolist") else value


def from_json_value(
    kind: type[T],
    value: Any,
    *,
    problem: str = "A value of JSON can't be read",
    remedy: str = "Correct it.",
    hooks: Mapping[Any, Callable[[Any], Any]] | None = None,
) -> T:
    """Return the value of type `kind` that `value` stands for.

    Args:
        kind: a dataclass, or a type made of dataclasses, `dict`, `Mapping`, `tuple`, unions, `Literal`, enums, `Path`,
            `str`, `int`, `float`, `bool` and `None`. What is annotated `Any` is taken as it is.
        value: what `json` read. Every field without a default must be there, and no unknown one. A `float` is read from
            any number and from the strings "inf" and "-inf"; nothing else is converted.
        problem: how a message begins, such as "runs/a/placement.json doesn't hold a placement".
        remedy: how a message ends.
        hooks: {type: how a value of it is read}, for types that a file spells in another way.

    Raises:
        UserError: If a part of `value` isn't of its type, is missing or is unknown; the message has the path to that
            part. A `UserError` that a class of `kind` raises for its arguments passes unchanged.

    Example:
        >>> from keras_qat.types import QuantSpec
        >>> from_json_value(QuantSpec, {"bits": 4, "axis": -1})
        QuantSpec(bits=4, signed=True, narrow=False, axis=-1, storage='int8')
        >>> from_json_value(QuantSpec, {"bits": "4"})
        Traceback (most recent call last):
        keras_qat.errors.UserError: A value of JSON can't be read: `bits` must be an integer. Received: '4'. Correct it.
    """
    converter = _converter(hooks or {})
    try:
        return converter.structure(value, kind)  # type: ignore[no-any-return]
    except Exception as error:
        cause, steps = _first_error(error)
        if isinstance(cause, UserError):
            raise cause from error
        # The last step to a missing field leads nowhere: what lacks it is what was received.
        missing = isinstance(cause, KeyError) and steps[-1:] == cause.args
        received = reduce(getitem, steps[:-1] if missing else steps, value)
        reason = "is missing" if missing else _reason(cause)
        raise UserError(f"{problem}: {_where(steps)} {reason}. Received: {_SHORT.repr(received)}. {remedy}") from error


class _MismatchError(ValueError):
    """A value isn't of its declared type."""

    def __init__(self, kind: Any) -> None:
        super().__init__(f"must be {_name(kind)}")


def _name(kind: Any) -> str:
    """What a message calls a type.

    Example:
        >>> _name(int | None), _name(tuple[str, ...]), _name(Literal["fp32", "fp16"])
        ('an integer or null', 'a list', "'fp32' or 'fp16'")
    """
    if kind in _SCALARS:
        return _SCALARS[kind][1]
    if options := _options(kind):
        return " or ".join(map(repr, options))
    if _is_union(kind):
        return " or ".join(map(_name, get_args(kind)))
    return "a list" if get_origin(kind) is tuple else "an object"


def _options(kind: Any) -> dict[Any, Any]:
    """{what JSON holds: the value} of a `Literal` or an enum; empty for other types."""
    if get_origin(kind) is Literal:
        return {option: option for option in get_args(kind)}
    members: Iterable[Enum] = kind if isinstance(kind, EnumMeta) else ()
    return {member.value: member for member in members}


def _converter(hooks: Mapping[Any, Callable[[Any], Any]]) -> Any:
    # Imported late: it takes 50 ms, and most commands read no such file.
    from cattrs import Converter
    from cattrs.cols import homogenous_tuple_structure_factory, is_mapping, mapping_structure_factory

    converter = Converter(forbid_extra_keys=True)

    def register(fits: Callable[[Any], bool], shape: Any, factory: Callable[[Any], Callable[[Any, Any], Any]]) -> None:
        converter.register_structure_hook_factory(fits, lambda kind: partial(_read_shape, shape, factory(kind)))

    register(is_dataclass, Mapping, converter.gen_structure_attrs_fromdict)
    register(is_mapping, Mapping, lambda kind: mapping_structure_factory(kind, converter, dict))
    register(_is_tuple, list | tuple, lambda kind: homogenous_tuple_structure_factory(kind, converter))
    converter.register_structure_hook_func(lambda kind: bool(_options(kind)), _read_option)
    converter.register_structure_hook_func(_is_union, partial(_read_union, converter))
    for kind in _SCALARS:
        converter.register_structure_hook(kind, _read_scalar)
    for kind, read in hooks.items():
        converter.register_structure_hook(kind, partial(_read_by_hook, read))
    return converter


def _is_union(kind: Any) -> bool:
    """Whether a type is `X | Y`, or `Union[X, Y]` or `Optional[X]` by another name."""
    origin: Any = get_origin(kind)
    return origin is Union or origin is UnionType


def _is_tuple(kind: Any) -> bool:
    """Whether a type is `tuple[X, ...]`."""
    return get_origin(kind) is tuple and get_args(kind)[1:] == (...,)


def _read_by_hook(read: Callable[[Any], Any], value: Any, _: Any) -> Any:
    return read(value)


def _read_shape(shape: Any, read: Callable[[Any, Any], Any], value: Any, kind: Any) -> Any:
    if not isinstance(value, shape):
        raise _MismatchError(kind)
    return read(value, kind)


def _read_option(value: Any, kind: Any) -> Any:
    # `==` takes true for 1.
    found = [result for option, result in _options(kind).items() if (type(option), option) == (type(value), value)]
    if not found:
        raise _MismatchError(kind)
    return found[0]


def _read_union(converter: Any, value: Any, kind: Any) -> Any:
    options = get_args(kind)
    if value is None and NoneType in options:
        return None
    for option in options:
        # An error within an option that fits is of another class, and passes: it knows its path.
        with suppress(_MismatchError):
            return converter.structure(value, option)
    raise _MismatchError(kind)


def _read_scalar(value: Any, kind: Any) -> Any:
    if kind not in _SCALARS:  # cattrs takes an enum of strings for a string.
        return _read_option(value, kind)
    if kind is float and value in _INFINITIES:
        return float(value)
    if not isinstance(value, _SCALARS[kind][0]) or (isinstance(value, bool) and kind is not bool):
        raise _MismatchError(kind)
    return value if value is None else kind(value)


def _first_error(error: BaseException, steps: tuple[Any, ...] = ()) -> tuple[BaseException, tuple[Any, ...]]:
    """The first error in the tree of groups that cattrs raises, and the fields, indices and keys that lead to it."""
    from cattrs.errors import ClassValidationError, IterableValidationError

    if not isinstance(error, ClassValidationError | IterableValidationError):
        return error, steps
    located, others = error.group_exceptions()
    if others:
        return others[0], steps
    cause, note = located[0]
    return _first_error(cause, (*steps, getattr(note, "name", None) or note.index))


def _where(steps: Sequence[Any]) -> str:
    """A path as a message has it.

    Example:
        >>> _where(("tensors", 3, "spec")), _where(("conv/relu", "amax"))
        ('`tensors[3].spec`', "`['conv/relu'].amax`")
    """
    parts = [f".{step}" if isinstance(step, str) and step.isidentifier() else f"[{step!r}]" for step in steps]
    return f"`{''.join(parts).removeprefix('.')}`" if parts else "it"


def _reason(error: BaseException) -> str:
    """What is wrong, as the end of a sentence about the part of the value that `error` is of."""
    from cattrs.errors import ForbiddenExtraKeysError

    if isinstance(error, _MismatchError):
        return str(error)
    if isinstance(error, ForbiddenExtraKeysError):
        return f"has unknown fields: {', '.join(map(repr, sorted(error.extra_fields)))}"
    return f"can't be read ({type(error).__name__}: {error})"

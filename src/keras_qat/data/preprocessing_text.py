"""Preprocessing as text, MODE:SIZE[:RESIZE] with options behind it, as the command line and messages spell it."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_qat.errors import UserError

if TYPE_CHECKING:
    from keras_qat.data.preprocessing import Preprocessing

_GRAY = "gray"

_SIDE = re.compile("[0-9]{1,9}")
_SIZE = re.compile("([0-9]{1,9})(?:x([0-9]{1,9}))?")

_NUMBER = r"[+-]?[0-9]{1,20}(?:\.[0-9]{0,20})?(?:e[+-]?[0-9]{1,3})?"
_NUMBERS = re.compile(f"{_NUMBER}(?:,{_NUMBER}){{0,2}}")

_CUSTOM = "custom"

_SPELLED: Mapping[str, Mapping[str, Any]] = {
    "squash": {"fit": "squash"},
    "letterbox": {"fit": "letterbox"},
    _GRAY: {"channels": 1},
    "nearest": {"interpolation": "nearest"},
    "bicubic": {"interpolation": "bicubic"},
    "lanczos3": {"interpolation": "lanczos3"},
    "lanczos5": {"interpolation": "lanczos5"},
    "aliased": {"antialias": False},
    "bgr": {"reverse_channels": True},
}
"""The fields that an option without a value sets."""

_VALUED: Mapping[str, tuple[re.Pattern[str], Callable[[str], Mapping[str, Any]]]] = {
    "letterbox": (re.compile("[0-9]{1,3}"), lambda value: {"fit": "letterbox", "fill": int(value)}),
    "divisor": (_NUMBERS, lambda value: {"divisor": _numbers(value)}),
    "offset": (_NUMBERS, lambda value: {"offset": _numbers(value)}),
}
"""What the value of an option looks like, and the fields that it sets."""

_DEFAULTS: Mapping[str, Any] = {"reverse_channels": False, "divisor": (1.0,), "offset": (0.0,)}
"""The normalization of the mode "custom", where the text doesn't say it."""


def read_text(text: str, modes: Sequence[str]) -> dict[str, Any]:
    """Read the fields of a preprocessing from its text.

    Args:
        text: "MODE:SIZE" or "MODE:SIZE:RESIZE", with options behind it.
        modes: the names of modes that a message lists.

    Returns:
        The fields, as `Preprocessing.from_dict` takes them; whether they fit each other is not checked.

    Raises:
        UserError: If the text has another form.

    Example:
        >>> read_text("tf:96x160:letterbox=114:gray", ("tf",))
        {'mode': 'tf', 'size': [96, 160], 'resize': 96, 'fit': 'letterbox', 'fill': 114, 'channels': 1}
    """
    mode, *parts = text.split(":")
    size = _SIZE.fullmatch(parts[0]) if parts else None
    resized = len(parts) > 1 and _SIDE.fullmatch(parts[1]) is not None
    options = [_option(part) for part in parts[1 + resized :]]
    if size is None or None in options:
        raise _unreadable(text, modes)
    sides = [int(side) for side in size.groups() if side is not None]
    found: dict[str, Any] = {}
    for fields in options:
        if fields is None or found.keys() & fields.keys():  # of two options for one thing, neither is meant
            raise _unreadable(text, modes)
        found |= fields
    normalization = {name: found.pop(name) for name in _DEFAULTS if name in found}
    if normalization and mode != _CUSTOM:
        raise UserError(
            f"Only the mode '{_CUSTOM}' takes a divisor, an offset and an order of channels. Received: {text!r}. Leave "
            f"them out, or give {_CUSTOM} as the mode."
        )
    if mode == _CUSTOM:
        found["custom"] = _custom(normalization, found.get("channels", 3))
    resize = int(parts[1]) if resized else min(sides)
    return {"mode": mode, "size": sides if len(sides) > 1 else sides[0], "resize": resize, **found}


def _custom(given: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """The fields of a `Normalization`; one number stands for all channels."""
    values = {**_DEFAULTS, **given}
    each = {name: values[name] * channels if len(values[name]) == 1 else values[name] for name in ("divisor", "offset")}
    return {**values, **{name: list(numbers) for name, numbers in each.items()}}


def _option(part: str) -> Mapping[str, Any] | None:
    """The fields that a part of the text sets; `None` if it is no option."""
    name, equals, value = part.partition("=")
    if not equals:
        return _SPELLED.get(name)
    pattern, fields = _VALUED.get(name, (None, None))
    return fields(value) if pattern is not None and fields is not None and pattern.fullmatch(value) else None


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def _unreadable(text: str, modes: Sequence[str]) -> UserError:
    return UserError(
        f"Can't read the preprocessing. Received: {text!r}. Give MODE:SIZE or MODE:SIZE:RESIZE, such as "
        f"caffe:224:256, with a mode of {', '.join(modes)}; for a network of one channel with :{_GRAY} behind it, such "
        f"as unit:28:{_GRAY}. SIZE may be HEIGHTxWIDTH. With :squash, :letterbox or :letterbox=VALUE behind it, "
        "nothing is cropped."
    )


def as_text(preprocessing: "Preprocessing") -> str:
    """The text of a preprocessing, which `read_text` reads."""
    p = preprocessing
    shorter = min(p.height, p.width)
    size = f"{p.height}" if p.height == p.width else f"{p.height}x{p.width}"
    custom = p.custom
    parts = (
        (p.mode, True),
        (size, True),
        (str(p.resize), p.resize != shorter),
        (f"letterbox={p.fill}" if p.fill else p.fit, p.fit != "crop"),
        (p.interpolation, p.interpolation != "bilinear"),
        ("aliased", not p.antialias),
        (f"divisor={_spelled(custom.divisor)}" if custom else "", custom is not None),
        (f"offset={_spelled(custom.offset)}" if custom else "", custom is not None),
        ("bgr", custom is not None and custom.reverse_channels),
        (_GRAY, p.channels == 1),
    )
    return ":".join(part for part, shown in parts if shown)


def _spelled(numbers: Sequence[float]) -> str:
    """The numbers as text, to the last bit; one for all if they are equal."""
    return ",".join(map(repr, numbers if len(set(numbers)) > 1 else numbers[:1]))

"""Text for tables and messages: sizes of files, long lists cut short, messages on one line, names of functions.

And names of the user's, which must start neither HTML nor a new column in Markdown, nor command a terminal.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_UNITS = ((1e9, 1e9, "GB"), (1e5, 1e6, "MB"), (0.0, 1e3, "kB"))
"""Each unit as (smallest number of bytes it is used for, bytes in one unit, name); below 0.1 MB sizes are in kB."""


def size_unit(count: float) -> tuple[float, str]:
    """The unit in which to write a size.

    Args:
        count: a number of bytes, not negative.

    Returns:
        The number of bytes in one unit, and the unit's name.

    Example:
        >>> size_unit(23_500_000), size_unit(99_000)
        ((1000000.0, 'MB'), (1000.0, 'kB'))
    """
    return next((size, name) for least, size, name in _UNITS if count >= least)


def size_text(count: float) -> str:
    """A size with its unit, to one decimal.

    Args:
        count: a number of bytes, not negative.

    Example:
        >>> size_text(148e9), size_text(23_500_000), size_text(100_000), size_text(34_210), size_text(40)
        ('148.0 GB', '23.5 MB', '0.1 MB', '34.2 kB', '0.0 kB')
    """
    size, unit = size_unit(count)
    return f"{count / size:.1f} {unit}"


def first_few(items: Iterable[object], most: int = 5, separator: str = ", ") -> str:
    """The first few items of a list, and how many more there are.

    Args:
        items: what to list, such as names; `map(repr, names)` puts them in quotes.
        most: how many items are shown at most.
        separator: stands between two items.

    Example:
        >>> first_few(["ant", "bee"]), first_few(map(repr, "abcdefgh"), most=3)
        ('ant, bee', "'a', 'b', 'c' and 5 more")
    """
    texts = [str(item) for item in items]
    more = len(texts) - most
    return separator.join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def one_line(text: object) -> str:
    r"""A text on one line: each run of spaces and line breaks becomes one space.

    Args:
        text: what to write, such as an error with its message.

    Example:
        >>> one_line(ValueError("line 2,\n  column 3"))
        'line 2, column 3'
    """
    return " ".join(str(text).split())


def shortened(text: object, most: int = 300) -> str:
    r"""What another library says, as a message quotes it: on one line, and without its middle if it is long.

    The beginning says what failed, and the end is often the cause.

    Args:
        text: what to quote: a text, or an error, whose class is named if it has no message.
        most: the most characters, at least 5.

    Example:
        >>> shortened(ValueError("line 2,\n  column 3")), shortened("abcdefghijkl", 9), shortened(MemoryError())
        ('line 2, column 3', 'abc … jkl', 'MemoryError')
    """
    line = one_line(text) or (type(text).__name__ if isinstance(text, BaseException) else "")
    kept = (most - 3) // 2
    return line if len(line) <= most else f"{line[:kept]} … {line[-kept:]}"


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and line feed, what reverses the direction of text, and the lone surrogates that stand
for the bytes of a file name that isn't UTF-8."""

_BREAKS = str.maketrans({"\n": r"\n", "\t": r"\t"})


def printable(text: str) -> str:
    r"""A text that may be written to a terminal or a log, whatever names of files are in it.

    Control characters, which can move the cursor, hide text or set a terminal's title, become Python's escapes, and so
    do the bytes of a file name that isn't UTF-8. Line breaks and tabs stay.

    Args:
        text: a message.

    Example:
        >>> print(printable("caf\udce9\x1b[2J.png"))
        caf\udce9\x1b[2J.png
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def path_text(path: str | Path) -> str:
    r"""A path as a sentence shows it: `printable`, and on one line.

    Args:
        path: a path, whose name may hold any character.

    Example:
        >>> print(path_text("line\nfeed.png"))
        line\nfeed.png
    """
    return printable(str(path)).translate(_BREAKS)


def callable_name(function: Any) -> str:
    """The name of a function, or of the class of another callable.

    Example:
        >>> from functools import partial
        >>> callable_name(len), callable_name(partial(int, base=2))
        ('len', 'partial')
    """
    return str(getattr(function, "__name__", type(function).__name__))


def markdown_text(text: str) -> str:
    """Text for Markdown in which no name starts HTML: `<` is escaped, except in code spans.

    Text that was escaped already stays as it is.

    Example:
        >>> markdown_text("<b>model</b> with `a < b`")
        '&lt;b>model&lt;/b> with `a < b`'
    """
    parts = re.split(r"(?<![`\\])(`[^`\n]+`)(?!`)", text)
    return "".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


def markdown_cell(text: str) -> str:
    r"""Text for a cell of a Markdown table: as `markdown_text`, on one line, with the column separator escaped.

    Example:
        >>> print(markdown_cell("conv | <relu>"))
        conv \| &lt;relu>
    """
    return one_line(markdown_text(text)).replace("|", "\\|")

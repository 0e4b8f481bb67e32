"""Sizes of files as people read them."""

_UNITS = ((1e9, 1e9, "GB"), (1e5, 1e6, "MB"), (0.0, 1e3, "kB"))
"""From that many bytes on, a unit, and its name. A small network's file isn't one of 0.0 MB."""


def size_unit(count: float) -> tuple[float, str]:
    """The unit to tell a number of bytes in, and how many bytes it is.

    Example:
        >>> size_unit(23_500_000), size_unit(99_000)
        ((1000000.0, 'MB'), (1000.0, 'kB'))
    """
    return next((size, name) for least, size, name in _UNITS if count >= least)


def size_text(count: float) -> str:
    """A number of bytes, with its unit.

    Example:
        >>> size_text(148e9), size_text(23_500_000), size_text(100_000), size_text(34_210), size_text(40)
        ('148.0 GB', '23.5 MB', '0.1 MB', '34.2 kB', '0.0 kB')
    """
    size, unit = size_unit(count)
    return f"{count / size:.1f} {unit}"

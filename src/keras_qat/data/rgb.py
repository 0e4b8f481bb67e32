"""The pixels of an opened image as RGB of 8 bits: which can be brought to it, and how."""

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

_UNREAD: Mapping[tuple[str | None, str], str] = {
    ("TIFF", "I"): "its pixels are integers with a sign, or of 32 bits",
    ("TIFF", "F"): "its pixels are floating-point numbers",
    ("PPM", "F"): "its pixels are floating-point numbers",
    ("TIFF", "LAB"): "its colours are those of CIELAB",
}
"""By (format, mode), pixels that Pillow can't convert, or only by clipping them at 0 and 255."""

_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC = 254, 258, 262
"""Tags of a TIFF's page: what kind of page it is, the bits of each channel, and what the numbers mean."""

_OF_ANOTHER_PAGE = 1 | 4
"""The bits in the kind of a page that make it a smaller copy of another page, a thumbnail, or its transparency."""

_WHITE_IS_ZERO = 0
"""The meaning of numbers that is inverted."""

_BITS = 16
"""The bits of gray in the modes "I;16" and "I", which Pillow has for PNG and PGM files of more than 8 bits."""


class UnreadPixelsError(Exception):
    """An image is whole, but its pixels can't be brought to RGB of 8 bits, or it is not known which of them to take."""


def require_rgb(image: Image.Image) -> None:
    """Check from an image's header that `to_rgb` can convert it.

    Args:
        image: an image that was opened, and whose pixels were not read.

    Raises:
        UnreadPixelsError: If it can't, or if the image is a TIFF of several pages, such as a stack or a scanned
            document, where nothing says which one is meant. The thumbnail or the transparency of a page is none itself.
    """
    unread = _UNREAD.get((image.format, image.mode))
    if unread is not None:
        raise UnreadPixelsError(f"{unread}; save it as RGB or gray of 8 or 16 bits, or give the pixels as arrays")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _require_one_page(image)


def _require_one_page(image: TiffImagePlugin.TiffImageFile) -> None:
    number = 0
    with suppress(EOFError):  # there is no further page
        while True:
            number += 1
            image.seek(number)
            if not image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & _OF_ANOTHER_PAGE:
                raise UnreadPixelsError("it has several pages; save the page that is meant as a file of its own")
    image.seek(0)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB; gray of up to 16 bits is scaled to 8 bits, transparency is dropped."""
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit gray to white.
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Gray of more than 8 bits: x · 255 / (2^bits - 1), rounded to the nearest."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    white = 2 ** tags.get(_BITS_PER_SAMPLE, (_BITS,))[0] - 1
    levels = np.clip(np.asarray(image, np.int32), 0, white)
    # Pillow inverts only what has at most 8 bits.
    levels = white - levels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else levels
    return np.asarray((levels * 255 + white // 2) // white, np.uint8)

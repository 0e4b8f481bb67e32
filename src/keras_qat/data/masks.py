"""Masks: images whose pixels are numbers of classes.

gray of 8 or 16 bits                       the number of each pixel's class
a palette                                  the index of each pixel's colour
two levels, or only 0 and 255              two classes, 0 and 1
RGB of which all three channels are equal  as gray
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.image_files import opened
from keras_qat.errors import DataError
from keras_qat.progress import track
from keras_qat.text import path_text

WHITE = 255
"""The second class in masks of black and white; in other masks a position without a class."""

_MOST_SEEN = 1000
"""The most masks that are looked at before they are used, spread over all."""

_ADVICE = "Replace the file with a whole mask, or remove it with its image."


def decode_mask(path: str | bytes | Path) -> NDArray[np.int32]:
    """Read a mask.

    Args:
        path: an image file, as the table above describes it.

    Returns:
        int32 array of shape (height, width).

    Raises:
        BrokenImageError: If the file is missing, truncated or no image.
        DataError: If it shows classes by colours that are no palette, so that their numbers aren't known.
    """
    name = os.fsdecode(path)
    with opened(name, name, _ADVICE) as image:
        bands = image.getbands()
        pixels = np.asarray(image)
    # Transparency, the last of several bands, says nothing of the class.
    channels = pixels.reshape(*pixels.shape[:2], -1)[..., : len(bands) - (len(bands) > 1 and bands[-1] in {"A", "a"})]
    if not np.array_equal(channels, np.broadcast_to(channels[..., :1], channels.shape)):
        raise DataError(
            f"The mask {path_text(name)} shows classes by colours, whose numbers are not known. Received: {name!r}, of "
            f"the channels {''.join(bands)}. Save masks as gray images of the numbers of classes, or with a palette."
        )
    return channels[..., 0].astype(np.int32)


def are_white(paths: Sequence[str], classes: int | None) -> bool:
    """Look through masks: whether they are black and white, and whether all others hold numbers of classes.

    Args:
        paths: the masks, of which at most 1000 are read, spread over all.
        classes: the number of classes of the model, if it is known.

    Returns:
        Whether the masks have two classes, of which the second is white, 255.

    Raises:
        BrokenImageError: If a mask can't be read.
        DataError: If a mask holds a number that no class has.
    """
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(len(paths), _MOST_SEEN)).astype(int))]
    with ThreadPoolExecutor() as pool:
        numbers = list(track(pool.map(_numbers, chosen), "looking at masks", total=len(chosen)))
    seen = frozenset[int]().union(*numbers)
    if classes in {None, 2} and WHITE in seen and seen <= {0, WHITE}:
        return True
    for path, found in zip(chosen, numbers, strict=True):
        wrong = [] if classes is None else sorted(n for n in found if n >= classes and n != WHITE)
        if wrong:
            raise DataError(
                f"The mask {path_text(path)} holds numbers that no class of the model has: they go from 0 to "
                f"{(classes or 0) - 1}, and {WHITE} is a position without a class. Received: {wrong[0]} in {path!r}. "
                "Save masks losslessly, as PNG, with the numbers of the classes; masks of two classes with 0 and 1, or "
                "with 0 and 255 alone."
            )
    return False


def _numbers(path: str) -> frozenset[int]:
    return frozenset(np.flatnonzero(np.bincount(decode_mask(path).ravel())).tolist())

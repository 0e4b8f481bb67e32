"""The image files of a folder: listed in sorted order, and looked at to find those that are no whole images."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.decode import IMAGE_SUFFIXES, check_header, check_whole
from keras_qat.errors import BrokenImageError, DataError
from keras_qat.progress import track

_logger = logging.getLogger(__name__)

_LOOKED_AT = 20_000
"""The most files whose headers are read. Opening a file costs about 0.1 ms: minutes for the whole of ImageNet."""

_AT_ONCE = 1000
"""Files that are given to the threads at a time: a million waiting tasks would fill the memory."""


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name, without those whose names begin with a dot.

    Raises:
        DataError: If the folder can't be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DataError(
            f"Can't list {folder}: {error.strerror}. Received: {str(folder)!r}. Make the folder readable."
        ) from error


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file with the suffix of an image."""
    suffix = os.path.splitext(entry.name)[1]  # noqa: PTH122 - a Path for each of a million names
    return suffix.lower() in IMAGE_SUFFIXES and entry.is_file()


def list_images(folder: Path, skip_bad: bool = False) -> Sequence[str]:
    """The paths of the images of a class folder, sorted.

    Args:
        folder: the class folder.
        skip_bad: leave out the files without the suffix of an image, and log how many there are.

    Raises:
        BrokenImageError: If the folder holds such a file and `skip_bad` is not set.
        DataError: If the folder holds no image, or holds a folder.
    """
    entries = visible(folder)
    images = [entry.path for entry in entries if is_image(entry)]
    pass_over([entry for entry in entries if not is_image(entry)], folder, skip_bad)
    if not images:
        raise DataError(
            f"The class folder {folder} has no image. Received: {str(folder)!r}. Add images, or remove the folder."
        )
    return images


def pass_over(strays: Sequence[os.DirEntry[str]], folder: Path, skip_bad: bool) -> None:
    """Refuse the entries among images that are no images, or only log them.

    Args:
        strays: the entries that are no images.
        folder: the folder that holds them.
        skip_bad: log files instead of refusing them; folders are refused in any case.

    Raises:
        BrokenImageError: If the first stray entry is a file and `skip_bad` is not set.
        DataError: If there is a folder.
    """
    first = next((entry for entry in strays if not skip_bad or not entry.is_file()), None)
    if first is not None:
        error = BrokenImageError if first.is_file() else DataError
        raise error(
            f"A folder of images holds something that isn't an image. Received: {first.path!r}. Move it away; files "
            f"named {', '.join(sorted(IMAGE_SUFFIXES))} are read."
        )
    if strays:
        _logger.warning(
            "%d file(s) of %s that aren't named as images are left out: %s.", len(strays), folder, strays[0].name
        )


def whole_files(paths: Sequence[str], skip_bad: bool) -> NDArray[np.bool_]:
    """Which files are whole images.

    Args:
        paths: the image files.
        skip_bad: read every file to its end, and log how many can't be decoded. Without it only the first bytes of
            each file are read, and none at all if there are more than 20,000 files.

    Returns:
        bool array of shape (n,); all True without `skip_bad`.

    Raises:
        BrokenImageError: If a file is found to be no image and `skip_bad` is not set.
    """
    whole = np.ones(len(paths), np.bool_)
    if not skip_bad:
        for path in paths if len(paths) <= _LOOKED_AT else ():
            check_header(path)
        return whole
    first = None
    for i, problem in enumerate(track(_problems(paths), "looking at images", total=len(paths))):
        whole[i] = problem is None
        first = first or problem
    if first is not None:
        _logger.warning("%d file(s) that are no image are left out. The first: %s", np.sum(~whole), first)
    return whole


def _problems(paths: Sequence[str]) -> Iterator[str | None]:
    with ThreadPoolExecutor() as pool:
        for begin in range(0, len(paths), _AT_ONCE):
            yield from pool.map(_problem, paths[begin : begin + _AT_ONCE])


def _problem(path: str) -> str | None:
    """Why a file is no whole image; `None` if it is one."""
    try:
        check_whole(path)
    except BrokenImageError as error:
        return str(error)
    return None

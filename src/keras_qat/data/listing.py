"""The image files of a folder, sorted."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_qat.data.decode import IMAGE_SUFFIXES
from keras_qat.errors import BrokenImageError, DataError

_logger = logging.getLogger(__name__)

Files = Mapping[str, Sequence[str]]
"""The paths of the images of each class folder, by its name."""


def all_paths(files: Files) -> Sequence[str]:
    """The paths of all classes, one class after the other.

    Example:
        >>> all_paths({"ant": ["ant/0.png"], "bee": ["bee/0.png", "bee/1.png"]})
        ['ant/0.png', 'bee/0.png', 'bee/1.png']
    """
    return [path for paths in files.values() for path in paths]


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name, without what begins with a dot.

    Raises:
        DataError: the folder can't be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DataError(
            f"Can't list {folder}: {error.strerror}. Received: {str(folder)!r}. Make the folder readable."
        ) from error


def list_images(folder: Path, skip_bad: bool = False) -> Sequence[str]:
    """The paths of a class folder's images.

    Args:
        folder: of the class.
        skip_bad: leave out the files whose names aren't those of images, and log how many.

    Raises:
        BrokenImageError: it holds a file of another name, and `skip_bad` isn't set.
        DataError: it holds no image, or a folder.
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
    """Refuse what isn't an image; or only log it.

    Args:
        strays: what lies among the images.
        folder: that they are in.
        skip_bad: log files; folders are refused in any case.

    Raises:
        BrokenImageError: there is a file, and `skip_bad` isn't set.
        DataError: there is a folder.
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


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether a file is named as an image is."""
    suffix = os.path.splitext(entry.name)[1]  # noqa: PTH122 - a Path for each of a million names
    return suffix.lower() in IMAGE_SUFFIXES and entry.is_file()

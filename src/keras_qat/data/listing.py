"""The image files of a folder, sorted, and whether they are images."""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from keras_qat.data.decode import IMAGE_SUFFIXES, check_header, check_whole
from keras_qat.errors import DataError
from keras_qat.progress import track

_logger = logging.getLogger(__name__)

# Opening each file costs about 0.1 ms: nothing for a small folder, minutes for the whole of ImageNet.
_CHECKED = 20_000

_SKIP = "leave such files out with --skip-bad"

Files = Mapping[str, Sequence[str]]
"""The paths of the images of each class folder, by its name."""


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
        DataError: it holds none, or a folder, or something else and `skip_bad` isn't set.
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
        DataError: there are some.
    """
    first = next((entry for entry in strays if not skip_bad or not entry.is_file()), None)
    if first is not None:
        raise DataError(
            f"A folder of images holds something that isn't an image. Received: {first.path!r}. Move it away"
            + (f", or {_SKIP}" if first.is_file() else "")
            + f"; files named {', '.join(sorted(IMAGE_SUFFIXES))} are read."
        )
    if strays:
        _logger.warning(
            "%d file(s) of %s that aren't named as images are left out: %s.", len(strays), folder, strays[0].name
        )


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether a file is named as an image is."""
    suffix = os.path.splitext(entry.name)[1]  # noqa: PTH122 - a Path for each of a million names
    return suffix.lower() in IMAGE_SUFFIXES and entry.is_file()


def check_images(splits: Sequence[Files], skip_bad: bool) -> tuple[Sequence[Files], int]:
    """The files that are images, and how many aren't; all of them where there are too many to look.

    Args:
        splits: files of one or more sets.
        skip_bad: read every file to its end, leave out those that can't be decoded, and log how many. Without, only
            the first bytes are read.

    Raises:
        DataError: a file is no image, and `skip_bad` isn't set.
    """
    paths = [path for split in splits for paths in split.values() for path in paths]
    if len(paths) > _CHECKED:
        return splits, 0
    if not skip_bad:
        for path in paths:
            check_header(path)
        return splits, 0
    with ThreadPoolExecutor() as pool:
        errors = list(track(pool.map(_error, paths), "looking at images", total=len(paths)))
    bad = {path: error for path, error in zip(paths, errors, strict=True) if error is not None}
    if not bad:
        return splits, 0
    _logger.warning("%d file(s) that are no image are left out. The first: %s", len(bad), next(iter(bad.values())))
    kept = [{name: [path for path in paths if path not in bad] for name, paths in split.items()} for split in splits]
    return kept, len(bad)


def _error(path: str) -> DataError | None:
    try:
        check_whole(path)
    except DataError as error:
        return error
    return None

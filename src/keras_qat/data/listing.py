"""The image files of a folder, sorted, and whether they are images."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_qat.data.decode import IMAGE_SUFFIXES, check_header
from keras_qat.errors import DataError

_logger = logging.getLogger(__name__)

# Opening each file costs about 0.1 ms: nothing for a small folder, minutes for the whole of ImageNet.
_HEADERS_CHECKED = 20_000

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


def list_images(folder: Path) -> Sequence[str]:
    """The paths of a class folder's images.

    Raises:
        DataError: it holds none, or something else.
    """
    entries = visible(folder)
    if not entries:
        raise DataError(
            f"The class folder {folder} has no image. Received: {str(folder)!r}. Add images, or remove the folder."
        )
    for entry in entries:
        if not is_image(entry):
            raise DataError(
                f"A class folder holds something that isn't an image. Received: {entry.path!r}. "
                f"Move it away; files named {', '.join(sorted(IMAGE_SUFFIXES))} are read."
            )
    return [entry.path for entry in entries]


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether a file is named as an image is."""
    suffix = os.path.splitext(entry.name)[1]  # noqa: PTH122 - a Path for each of a million names
    return suffix.lower() in IMAGE_SUFFIXES and entry.is_file()


def check_headers(splits: Sequence[Files], skip_bad: bool) -> tuple[Sequence[Files], int]:
    """The files whose header is an image's, and how many aren't; all of them where there are too many to look.

    Args:
        splits: files of one or more sets.
        skip_bad: leave out the files whose first bytes are no image's, and log how many.

    Raises:
        DataError: a file is no image, and `skip_bad` isn't set.
    """
    if sum(len(paths) for split in splits for paths in split.values()) > _HEADERS_CHECKED:
        return splits, 0
    paths = [path for split in splits for paths in split.values() for path in paths]
    bad = {path: error for path in paths if (error := _header_error(path)) is not None}
    if not bad:
        return splits, 0
    first = next(iter(bad.values()))
    if not skip_bad:
        raise first
    _logger.warning("%d file(s) that are no image are left out. The first: %s", len(bad), first)
    kept = [{name: [path for path in paths if path not in bad] for name, paths in split.items()} for split in splits]
    return kept, len(bad)


def _header_error(path: str) -> DataError | None:
    try:
        check_header(path)
    except DataError as error:
        return error
    return None

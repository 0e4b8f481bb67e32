"""Which of the listed files are images, and sets without those that aren't.

A data set is cut into its parts before the broken files leave them: the same images train and judge whether broken ones
are left out or were never looked at.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.decode import check_header, check_whole
from keras_qat.data.image_set import ImageSet
from keras_qat.errors import BrokenImageError, DataError
from keras_qat.progress import track

_logger = logging.getLogger(__name__)

# Opening each file costs about 0.1 ms: nothing for a small folder, minutes for the whole of ImageNet.
_LOOKED_AT = 20_000

_AT_ONCE = 1000
"""Files that the threads are given at a time: a million waiting tasks would fill the memory."""


def whole_files(paths: Sequence[str], skip_bad: bool) -> NDArray[np.bool_]:
    """Which files are images.

    Args:
        paths: of the files.
        skip_bad: read every file to its end, and log how many can't be decoded. Without, only the first bytes are
            read, and those of no file where there are more than 20,000.

    Returns:
        bool array of shape (n,); without `skip_bad` all are true.

    Raises:
        BrokenImageError: a file is no image, and `skip_bad` isn't set.
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


def select_whole(images: ImageSet, indices: NDArray[np.int64], whole: NDArray[np.bool_], name: str) -> ImageSet:
    """A part of a set without the broken files.

    Args:
        images: the set, with all its files.
        indices: int64 array of shape (n,): the part.
        whole: bool array of shape (n,): which of them are images.
        name: of the part.

    Raises:
        DataError: none is.

    Example:
        >>> from keras_qat.data.preprocessing import Preprocessing
        >>> images = ImageSet.from_files("all", ["a.png", "b.png", "c.png"], [0, 1, 0], Preprocessing("tf", 8, 8))
        >>> select_whole(images, np.array([1, 2]), np.array([True, False]), "some").source.paths
        ('b.png',)
    """
    if not np.any(whole):
        raise DataError(
            f"Without the files that are no image nothing is left of {name}. Received: {len(indices)} file(s), none of "
            "them a whole image. Replace some with whole images."
        )
    return images.select(indices[whole], name)


def _problems(paths: Sequence[str]) -> Iterator[str | None]:
    with ThreadPoolExecutor() as pool:
        for begin in range(0, len(paths), _AT_ONCE):
            yield from pool.map(_problem, paths[begin : begin + _AT_ONCE])


def _problem(path: str) -> str | None:
    try:
        check_whole(path)
    except BrokenImageError as error:
        return str(error)
    return None

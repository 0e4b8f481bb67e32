"""The image files of a folder, sorted.

Which of the listed files are images, and sets without those that aren't.

A data set is cut into its parts before the broken files leave them: the same images train and judge whether broken ones
are left out or were never looked at.

ImageNet's 1000 classes: their WordNet ids and names, in Keras's order.

From class folders to labels: numbered in sorted order, or as ImageNet's if WordNet ids name them.

Of folders named by WordNet ids, the model decides: one of 1000 classes has ImageNet's numbers, and another of as many
classes as there are folders was trained on them alone, numbered as `keras.utils.image_dataset_from_directory` does.
"""

import csv
import functools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.decode import IMAGE_SUFFIXES, check_header, check_whole
from keras_qat.data.image_set import ImageSet
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.errors import BrokenImageError, DataError
from keras_qat.progress import track

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
        >>> from keras_qat.data import Preprocessing
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


_WNID = re.compile(r"n\d{8}")


def is_wnid(name: str) -> bool:
    """Whether `name` has the form of a WordNet id, such as `n01440764`."""
    return _WNID.fullmatch(name) is not None


@functools.cache
def imagenet_classes() -> dict[str, str]:
    """The 1000 classes in the order of the network's outputs: WordNet id → name.

    Example:
        >>> list(imagenet_classes().items())[:2]
        [('n01440764', 'tench'), ('n01443537', 'goldfish')]
    """
    text = resources.files("keras_qat.data").joinpath("imagenet_classes.csv").read_text(encoding="utf-8")
    return {row["wnid"]: row["name"] for row in csv.DictReader(text.splitlines())}


def number_classes(
    folder: Path, names: Iterable[str], num_classes: int | None = None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The label of each class folder of `folder`, and the names of all classes.

    Args:
        folder: for the message.
        names: of the class folders, sorted.
        num_classes: how many classes the model tells apart; `None` if that isn't known, and WordNet ids are ImageNet's;
            0 where labels don't matter, and nothing is refused.

    Raises:
        DataError: all are WordNet ids, but one isn't ImageNet's, or the model's classes are neither those of the
            folders nor ImageNet's.

    Example:
        >>> number_classes(Path("val"), ["n01443537", "n02084071"], 2)
        ({'n01443537': 0, 'n02084071': 1}, ('goldfish', 'n02084071'))
        >>> number_classes(Path("val"), ["n01443537"], 1000)[0]["n01443537"]
        1
    """
    names = tuple(names)
    if num_classes == 0 or not all(map(is_wnid, names)):
        return {name: i for i, name in enumerate(names)}, names
    classes = imagenet_classes()
    # As many folders as ImageNet's classes may be those, with one misspelt that would move all behind it.
    if num_classes == len(names) != len(classes):
        return {wnid: i for i, wnid in enumerate(names)}, tuple(classes.get(wnid, wnid) for wnid in names)
    if num_classes not in {None, len(classes)}:
        raise DataError(
            f"The folders of {folder} are named by WordNet ids, which are either ImageNet's {len(classes)} classes or "
            f"the {len(names)} of these folders, numbered in sorted order. Received: a model of {num_classes} classes. "
            "Give the model that the data is for, or the folders of all classes that the model was trained on."
        )
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise DataError(
            f"{folder} has WordNet ids that aren't among ImageNet's {len(classes)} classes. Received: {few(unknown)}. "
            "Correct or remove those folders if the model is ImageNet's. If it was trained on the "
            f"{len(names)} of these folders alone, in sorted order, begin all their names with the same letters, as in "
            f"my-{unknown[0]}: folders that aren't named by ids are numbered so."
        )
    return {wnid: i for i, wnid in enumerate(classes)}, tuple(classes.values())


def labelled_files(name: str, files: Files, index: Mapping[str, int], preprocessing: Preprocessing) -> ImageSet:
    """The images of class folders under the labels that `index` has for those."""
    labels = [index[class_name] for class_name, paths in files.items() for _ in paths]
    return ImageSet.from_files(name, all_paths(files), labels, preprocessing)


def few(names: Sequence[str]) -> str:
    """The first names, for a message.

    Example:
        >>> few(["ant", "bee"]), few(list("abcdefgh"))
        ("'ant', 'bee'", "'a', 'b', 'c', 'd', 'e' and 3 more")
    """
    shown = ", ".join(map(repr, names[:5]))
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown  # noqa: PLR2004

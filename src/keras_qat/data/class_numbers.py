"""From class folders to labels: numbered in sorted order, or as ImageNet's classes if WordNet ids name them.

If WordNet ids name all class folders, the model decides. A model of 1000 classes has ImageNet's numbers. A model of as
many classes as there are folders was trained on those alone, numbered as `keras.utils.image_dataset_from_directory`
numbers them.
"""

import csv
import functools
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from keras_qat.errors import DataError

_WNID = re.compile(r"n\d{8}")


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
    """Number the class folders of `folder`.

    Args:
        folder: the folder that holds them, for error messages.
        names: the names of the class folders, sorted.
        num_classes: the number of classes of the model. `None` if it is not known: WordNet ids are then ImageNet's.
            0 if labels do not matter: no name is refused.

    Returns:
        The label of each class folder by its name, and the names of all classes in the order of the labels.

    Raises:
        DataError: If all names are WordNet ids and one of them is not among ImageNet's, or the model has neither as
            many classes as there are folders nor 1000.

    Example:
        >>> number_classes(Path("val"), ["n01443537", "n02084071"], 2)
        ({'n01443537': 0, 'n02084071': 1}, ('goldfish', 'n02084071'))
        >>> number_classes(Path("val"), ["n01443537"], 1000)[0]["n01443537"]
        1
    """
    names = tuple(names)
    if num_classes == 0 or not all(map(_WNID.fullmatch, names)):
        return {name: i for i, name in enumerate(names)}, names
    classes = imagenet_classes()
    # 1000 folders are taken for ImageNet's: one misspelt id among them would move the labels of all classes behind it.
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


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names, for an error message.

    Example:
        >>> few(["ant", "bee"]), few(list("abcdefgh"))
        ("'ant', 'bee'", "'a', 'b', 'c', 'd', 'e' and 3 more")
    """
    shown = ", ".join(map(repr, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown

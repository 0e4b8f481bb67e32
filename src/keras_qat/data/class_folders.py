"""From class folders to labels: numbered in sorted order, or as ImageNet's if WordNet ids name them.

Of folders named by WordNet ids, the model decides: one of 1000 classes has ImageNet's numbers, and another of as many
classes as there are folders was trained on them alone, numbered as `keras.utils.image_dataset_from_directory` does.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from keras_qat.data.image_set import ImageSet
from keras_qat.data.imagenet import imagenet_classes, is_wnid
from keras_qat.data.listing import Files, all_paths
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.errors import DataError


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

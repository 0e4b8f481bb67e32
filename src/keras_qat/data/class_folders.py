"""From class folders to labels: numbered in sorted order, or as ImageNet's if WordNet ids name them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from keras_qat.data.image_set import ImageSet
from keras_qat.data.imagenet import imagenet_classes, is_wnid
from keras_qat.data.listing import Files
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.errors import DataError


def number_classes(folder: Path, names: Iterable[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The label of each class folder of `folder`, and the names of all classes.

    Args:
        folder: for the message.
        names: of the class folders, sorted.

    Raises:
        DataError: all are WordNet ids, but one isn't ImageNet's.
    """
    names = tuple(names)
    if not all(map(is_wnid, names)):
        return {name: i for i, name in enumerate(names)}, names
    classes = imagenet_classes()
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise DataError(
            f"{folder} has WordNet ids that aren't among ImageNet's 1000 classes. "
            f"Received: {few(unknown)}. "
            "Remove those folders, or name the classes in words for a network of your own."
        )
    return {wnid: i for i, wnid in enumerate(classes)}, tuple(classes.values())


def labelled_files(name: str, files: Files, index: Mapping[str, int], preprocessing: Preprocessing) -> ImageSet:
    """The images of class folders under the labels that `index` has for those."""
    labels = [index[class_name] for class_name, paths in files.items() for _ in paths]
    return ImageSet.from_files(name, [p for paths in files.values() for p in paths], labels, preprocessing)


def few(names: Sequence[str]) -> str:
    """The first names, for a message.

    Example:
        >>> few(["ant", "bee"]), few(list("abcdefgh"))
        ("'ant', 'bee'", "'a', 'b', 'c', 'd', 'e' and 3 more")
    """
    shown = ", ".join(map(repr, names[:5]))
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown  # noqa: PLR2004

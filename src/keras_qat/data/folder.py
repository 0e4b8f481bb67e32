"""A folder of images: `train/` and `val/`, in each of them one folder a class."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from keras_qat.data.class_folders import few, labelled_files, number_classes
from keras_qat.data.hold_out import held_out
from keras_qat.data.listing import Files, all_paths, is_image, list_images, visible
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.splits import Labelled, Splits
from keras_qat.data.whole_images import select_whole, whole_files
from keras_qat.errors import DataError
from keras_qat.file_system import is_folder

_LAYOUT = "Lay it out as train/CLASS/IMAGE and val/CLASS/IMAGE."


def load_folder(
    folder: str | Path,
    preprocessing: Preprocessing,
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
) -> Splits:
    """Load images from `folder/train/CLASS/` and `folder/val/CLASS/`.

    The classes of `train` are numbered in sorted order; if every class folder is named by a WordNet id (`n01440764`),
    the labels are ImageNet's 1000, unless the model has as many classes as there are folders. A tenth of `train`, at
    most 5000 images, is held out for selection. Names that begin with a dot are ignored. Without `skip_bad` the first
    bytes of each file are looked at when there are at most 20,000; an image that breaks later raises a
    `BrokenImageError` when it is read (see `decode_errors`).

    Args:
        folder: holds `train` and `val`.
        preprocessing: of the network.
        seed: of the selection.
        skip_bad: leave out the files that are no whole image, and log how many; the selection is that of all files.
        num_classes: how many classes the model tells apart, if that is known.

    Returns:
        The three sets.

    Raises:
        DataError: a folder is missing or empty, a class of `val` isn't in `train`, a WordNet id isn't
            ImageNet's, the model has other classes than WordNet ids name, or a file is no image.
    """
    root = Path(folder)
    listed = [_list_classes(root, split, skip_bad) for split in ("train", "val")]
    _require_trained(root, *listed)
    index, class_names = number_classes(root / "train", listed[0], num_classes)
    name = root.resolve().name
    train, validation = (labelled_files(name, files, index, preprocessing) for files in listed)
    kept, selection = held_out(train.labels, root / "train", seed)
    whole = whole_files([path for files in listed for path in all_paths(files)], skip_bad)
    whole_train, whole_validation = np.split(whole, [len(train)])
    return Splits(
        name=name,
        train=select_whole(train, kept, whole_train[kept], f"{name}/train"),
        selection=select_whole(train, selection, whole_train[selection], f"{name}/selection"),
        validation=select_whole(validation, np.arange(len(validation)), whole_validation, f"{name}/val"),
        num_classes=len(class_names),
        class_names=class_names,
    )


def load_folder_validation(
    folder: str | Path, preprocessing: Preprocessing, skip_bad: bool = False, num_classes: int | None = None
) -> Labelled:
    """Load the images of `folder/val/CLASS/`; `folder/train` gives the numbers of the classes where it is there.

    Args:
        folder: holds `val`.
        preprocessing: of the network.
        skip_bad: as in `load_folder`.
        num_classes: likewise.

    Returns:
        The validation images.

    Raises:
        DataError: as from `load_folder`, of what is read here.
    """
    root = Path(folder)
    validation = _list_classes(root, "val", skip_bad)
    numbered: Iterable[str] = validation
    if is_folder(root / "train", DataError):
        numbered = [entry.name for entry in visible(root / "train") if entry.is_dir()]
        _require_trained(root, numbered, validation)
    index, class_names = number_classes(root / "val", numbered, num_classes)
    name = f"{root.resolve().name}/val"
    images = labelled_files(name, validation, index, preprocessing)
    whole = whole_files(all_paths(validation), skip_bad)
    return Labelled(select_whole(images, np.arange(len(images)), whole, name), class_names, int(np.sum(~whole)))


def _list_classes(root: Path, split: str, skip_bad: bool) -> Files:
    """The image files of each class folder, sorted."""
    folder = root / split
    if not is_folder(folder, DataError):
        problem = f"it has no {split}/ folder" if is_folder(root, DataError) else "there is no such folder"
        raise DataError(f"Can't load images from {root}: {problem}. Received: {str(root)!r}. {_LAYOUT}")
    entries = visible(folder)
    stray = next((e for e in entries if is_image(e)), None)
    if stray is not None:
        raise DataError(f"An image lies outside of a class folder. Received: {stray.path!r}. Move it. {_LAYOUT}")
    classes = {entry.name: list_images(Path(entry.path), skip_bad) for entry in entries if entry.is_dir()}
    if not classes:
        raise DataError(f"{folder} has no class folder. Received: {str(folder)!r}. {_LAYOUT}")
    return classes


def _require_trained(root: Path, train: Iterable[str], validation: Iterable[str]) -> None:
    lacking = sorted(set(validation) - set(train))
    if lacking:
        raise DataError(
            f"{root / 'val'} has classes that {root / 'train'} lacks. Received: {few(lacking)}. "
            "Give train images of the same classes, or remove those folders."
        )

"""A folder of images: `train/` and `val/`, in each of them one folder a class.

A folder of photos that nobody has cut: images with no labels, or one folder a class.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.image_files import (
    Files,
    all_paths,
    few,
    is_image,
    labelled_files,
    list_images,
    number_classes,
    pass_over,
    select_whole,
    visible,
    whole_files,
)
from keras_qat.data.image_set import ImageSet, stratified_cut
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.splits import Labelled, Splits, held_out
from keras_qat.errors import DataError
from keras_qat.files import is_folder
from keras_qat.types import UNLABELLED

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


_SHARE = 0.2

_MOST = 1000
"""As many tell a point of agreement or accuracy; the others are of more use to choose ranges by."""

_LEAST = 5
"""One that judges, one that chooses the epoch, and a few to choose ranges by."""

_NO_CLASS = ""
"""Stands for the class folder of images that lie in none."""

_SPLITS = ("train", "val")

_PHOTOS_LAYOUT = "Put all images into the folder itself, or into one folder a class, CLASS/IMAGE"
_CUT = "a data set that is cut already has train/CLASS/IMAGE and val/CLASS/IMAGE"


def is_photos(source: str | Path) -> bool:
    """Whether a folder is to be cut here: it is there, and isn't one that was cut into `train/` and `val/` already.

    A `train/` that holds images itself is a class, of locomotives.
    """
    root = Path(source)
    splits = [root / split for split in _SPLITS if is_folder(root / split, DataError)]
    return is_folder(root, DataError) and all(map(_holds_images, splits))


def _holds_images(folder: Path) -> bool:
    """Images and no folders; a stray file, such as Thumbs.db, decides nothing."""
    entries = visible(folder)
    return any(map(is_image, entries)) and not any(entry.is_dir() for entry in entries)


def load_photos(
    folder: str | Path,
    preprocessing: Preprocessing,
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
) -> Splits:
    """Load the images of `folder/IMAGE`, which have no labels, or of `folder/CLASS/IMAGE`, and cut them.

    Classes are numbered in sorted order, as `keras.utils.image_dataset_from_directory` does, or as ImageNet's if
    WordNet ids name them all and the model isn't of exactly those folders (`number_classes`). A fifth of the images, at
    most 1000, is for validation; of the others a tenth is held out for selection. Both are stratified. All image files
    that are listed are cut, broken ones too: the cut is the same with and without `skip_bad`.

    Args:
        folder: of the photos; names that begin with a dot are ignored.
        preprocessing: of the network.
        seed: of the cut.
        skip_bad: leave the files that are no whole image out of each set, and log how many.
        num_classes: how many classes the model tells apart, if that is known.

    Returns:
        The three sets; without labels with no classes, and -1 in place of each label.

    Raises:
        BrokenImageError: it holds something that isn't an image, and `skip_bad` isn't set.
        DataError: the folder is empty, holds fewer than 5 images, images beside folders or folders in folders; no whole
            image is left of a set; or a WordNet id isn't ImageNet's.
    """
    root = Path(folder)
    photos = _read(root, preprocessing, skip_bad, num_classes)
    rest, validation = _cut(photos.images.labels, seed)
    train, selection = (rest[part] for part in held_out(photos.images.labels[rest], root, seed))
    whole = whole_files(photos.paths, skip_bad)
    name = photos.images.name
    return Splits(
        name=name,
        train=select_whole(photos.images, train, whole[train], f"{name}/train"),
        selection=select_whole(photos.images, selection, whole[selection], f"{name}/selection"),
        validation=select_whole(photos.images, validation, whole[validation], f"{name}/validation"),
        num_classes=len(photos.class_names),
        class_names=photos.class_names,
    )


def load_photos_validation(
    folder: str | Path,
    preprocessing: Preprocessing,
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
) -> Labelled:
    """The validation images of `load_photos`, with the same seed: none of those that a run calibrates with.

    Only these are looked at: a broken one among the others is nobody's concern here.

    Raises:
        DataError: as from `load_photos`.
    """
    photos = _read(Path(folder), preprocessing, skip_bad, num_classes)
    _, validation = _cut(photos.images.labels, seed)
    whole = whole_files([photos.paths[i] for i in validation], skip_bad)
    images = select_whole(photos.images, validation, whole, f"{photos.images.name}/validation")
    return Labelled(images, photos.class_names, int(np.sum(~whole)))


@dataclass(frozen=True, eq=False)
class _Photos:
    """All that are listed; `paths` are those of `images`, in the same order."""

    images: ImageSet
    paths: Sequence[str]
    class_names: tuple[str, ...]


def _read(root: Path, preprocessing: Preprocessing, skip_bad: bool, num_classes: int | None) -> _Photos:
    files = _list_photos(root, skip_bad)
    paths = all_paths(files)
    if len(paths) < _LEAST:
        raise DataError(
            f"{root} has too few images to cut them into some that calibrate and some that judge. "
            f"Received: {len(paths)} image(s). Give at least {_LEAST}, better some hundreds."
        )
    flat = _NO_CLASS in files
    index, class_names = ({_NO_CLASS: UNLABELLED}, ()) if flat else number_classes(root, files, num_classes)
    return _Photos(labelled_files(root.resolve().name, files, index, preprocessing), paths, class_names)


def _cut(labels: NDArray[np.int32], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices that don't judge, and those that do."""
    return stratified_cut(labels, _SHARE, _MOST, seed)


def _list_photos(root: Path, skip_bad: bool) -> Files:
    """The images by class folder; by none where they lie in the folder itself."""
    entries = visible(root)
    folders = [Path(entry.path) for entry in entries if entry.is_dir()]
    images = [entry.path for entry in entries if is_image(entry)]
    others = [entry for entry in entries if not entry.is_dir() and not is_image(entry)]
    if not folders and not images:
        received = f"{others[0].path!r}, which is no image" if others else f"{str(root)!r}, which is empty"
        raise DataError(f"There are no images in {root}. Received: {received}. {_LAYOUT}; {_CUT}.")
    pass_over(others, root, skip_bad)
    if folders and images:
        raise DataError(
            "Images lie beside folders, so it isn't clear whether folders are classes. "
            f"Received: {images[0]!r} beside {str(folders[0])!r}. {_LAYOUT}."
        )
    return {folder.name: _list_class(folder, skip_bad) for folder in folders} if folders else {_NO_CLASS: images}


def _list_class(folder: Path, skip_bad: bool) -> Sequence[str]:
    nested = next((entry.path for entry in visible(folder) if entry.is_dir()), None)
    if nested is not None:
        raise DataError(
            f"A class folder holds a folder, and images are looked for one level deep. Received: {nested!r}. "
            f"{_LAYOUT}; {_CUT}."
        )
    return list_images(folder, skip_bad)

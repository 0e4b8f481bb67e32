"""A folder of photos that nobody has cut: images with no labels, or one folder a class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.class_folders import labelled_files, number_classes
from keras_qat.data.hold_out import held_out
from keras_qat.data.image_set import ImageSet
from keras_qat.data.listing import Files, all_paths, is_image, list_images, pass_over, visible
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.splits import Labelled, Splits
from keras_qat.data.stratify import stratified_cut
from keras_qat.data.whole_images import select_whole, whole_files
from keras_qat.errors import DataError
from keras_qat.file_system import is_folder
from keras_qat.types import UNLABELLED

_SHARE = 0.2

_MOST = 1000
"""As many tell a point of agreement or accuracy; the others are of more use to choose ranges by."""

_LEAST = 5
"""One that judges, one that chooses the epoch, and a few to choose ranges by."""

_NO_CLASS = ""
"""Stands for the class folder of images that lie in none."""

_SPLITS = ("train", "val")

_LAYOUT = "Put all images into the folder itself, or into one folder a class, CLASS/IMAGE"
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

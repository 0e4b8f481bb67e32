"""A folder of photos that nobody has cut: images with no labels, or one folder a class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_qat.data.class_folders import labelled_files, number_classes
from keras_qat.data.hold_out import hold_out
from keras_qat.data.image_set import ImageSet
from keras_qat.data.listing import Files, check_images, is_image, list_images, pass_over, visible
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.splits import Labelled, Splits
from keras_qat.data.stratify import stratified_order
from keras_qat.errors import DataError
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
    splits = [root / split for split in _SPLITS if (root / split).is_dir()]
    return root.is_dir() and all(_holds_images_alone(split) for split in splits)


def _holds_images_alone(folder: Path) -> bool:
    entries = visible(folder)
    return bool(entries) and all(map(is_image, entries))


def load_photos(
    folder: str | Path,
    preprocessing: Preprocessing,
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
) -> Splits:
    """Load the images of `folder/IMAGE`, which have no labels, or of `folder/CLASS/IMAGE`, and cut them.

    Classes are numbered in sorted order, as `keras.utils.image_dataset_from_directory` does, or as ImageNet's if
    WordNet ids name them all and the model doesn't have exactly as many classes as there are folders. A fifth of the
    images, at most 1000, is for validation; of the others a tenth is held out for selection. Both are stratified.

    Args:
        folder: of the photos; names that begin with a dot are ignored.
        preprocessing: of the network.
        seed: of the cut.
        skip_bad: leave out the files that are no whole image, and log how many.
        num_classes: how many classes the model tells apart, if that is known.

    Returns:
        The three sets; without labels with no classes, and -1 in place of each label.

    Raises:
        DataError: the folder is empty, holds fewer than 5 images, images beside folders, folders in folders, or
            something that isn't an image; or a WordNet id isn't ImageNet's.
    """
    root = Path(folder)
    photos = _read(root, preprocessing, skip_bad, num_classes)
    rest, validation = _cut(photos.images, seed)
    name = photos.images.name
    train, selection = hold_out(photos.images.select(rest, f"{name}/train"), f"{name}/selection", root, seed)
    return Splits(
        name=name,
        train=train,
        selection=selection,
        validation=photos.images.select(validation, f"{name}/validation"),
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

    Raises:
        DataError: as from `load_photos`.
    """
    photos = _read(Path(folder), preprocessing, skip_bad, num_classes)
    _, validation = _cut(photos.images, seed)
    images = photos.images.select(validation, f"{photos.images.name}/validation")
    return Labelled(images, photos.class_names, photos.skipped)


@dataclass(frozen=True, eq=False)
class _Photos:
    images: ImageSet
    class_names: tuple[str, ...]
    skipped: int


def _read(root: Path, preprocessing: Preprocessing, skip_bad: bool, num_classes: int | None) -> _Photos:
    listed = _list_photos(root, skip_bad)
    (files,), skipped = check_images([listed], skip_bad)
    count = sum(map(len, files.values()))
    if count < _LEAST:
        raise DataError(
            f"{root} has too few images to cut them into some that calibrate and some that judge. "
            f"Received: {count} image(s). Give at least {_LEAST}, better some hundreds."
        )
    flat = _NO_CLASS in files
    index, class_names = ({_NO_CLASS: UNLABELLED}, ()) if flat else number_classes(root, files, num_classes)
    return _Photos(labelled_files(root.resolve().name, files, index, preprocessing), class_names, skipped)


def _cut(images: ImageSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices that don't judge, and those that do."""
    order = stratified_order(images.labels, seed)
    count = min(max(1, round(_SHARE * len(images))), _MOST)
    return np.sort(order[count:]), np.sort(order[:count])


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

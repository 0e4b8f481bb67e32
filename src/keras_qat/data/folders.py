"""A folder of images as a data set, in one of three layouts.

    train/CLASS/IMAGE and val/CLASS/IMAGE       already cut
    CLASS/IMAGE                                 cut here, stratified by class
    IMAGE                                       cut here; the images have no labels

All listed files are cut before broken ones are left out. So the same images train and judge with and without
`skip_bad`: none that calibrated a run judges it because `evaluate` was called with the option and the run was not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.data import class_numbers, image_files
from keras_qat.data.image_set import ImageSet
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.splits import Labelled, Splits, cut_off, hold_out
from keras_qat.errors import DataError
from keras_qat.files import is_folder
from keras_qat.types import UNLABELLED

_NO_CLASS = ""
"""Stands for the class folder of images that lie in none."""

_CUT_LAYOUT = "Lay it out as train/CLASS/IMAGE and val/CLASS/IMAGE."
_UNCUT_LAYOUT = "Put all images into the folder itself, or into one folder a class, CLASS/IMAGE"
_CUT_ALREADY = "a data set that is cut already has train/CLASS/IMAGE and val/CLASS/IMAGE"

_Files = Mapping[str, Sequence[str]]
"""The paths of the images of each class folder, by its name."""


@dataclass(frozen=True, eq=False)
class _Listing:
    """The image files of a folder, broken ones included, and how they are cut.

    Args:
        paths: all n files.
        labels: int32 (n,): the label of each file.
        class_names: one name for each class; none where there are no labels.
        train: int64: the indices of the files that train; those held out for selection are still among them.
        validation: int64: the indices of the files that judge.
        train_folder: the folder that `train` is from, for error messages.
        validation_name: what a report calls the validation images.
    """

    paths: Sequence[str]
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    train_folder: Path
    validation_name: str

    def image_set(
        self, indices: NDArray[np.int64], whole: NDArray[np.bool_], name: str, preprocessing: Preprocessing
    ) -> ImageSet:
        """The files at `indices` that are whole images."""
        if not np.any(whole):
            raise DataError(
                f"Without the files that are no image nothing is left of {name}. Received: {len(indices)} file(s), "
                "none of them a whole image. Replace some with whole images."
            )
        kept = indices[whole]
        return ImageSet.from_files(name, [self.paths[i] for i in kept], self.labels[kept], preprocessing)


def load_folder(
    folder: str | Path,
    preprocessing: Preprocessing,
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
) -> Splits:
    """Load a folder of images as training, selection and validation images.

    A folder with `train/CLASS/IMAGE` and `val/CLASS/IMAGE` is taken as it is cut. Of another folder a fifth of the
    images, at most 1000, is for validation, stratified by class. In both cases a tenth of the others, at most 5000, is
    held out for selection, stratified too.

    Classes are numbered in sorted order, as `keras.utils.image_dataset_from_directory` does, or as ImageNet's
    (`number_classes`). Names that begin with a dot are ignored. Without `skip_bad` the first bytes of each file are
    read if there are at most 20,000 files; an image that turns out to be broken later raises a `BrokenImageError` when
    it is read (see `decode_errors`).

    Args:
        folder: the folder.
        preprocessing: the preprocessing of the network.
        seed: the seed of the cut.
        skip_bad: leave the files that are no whole image out of each set, and log how many there are.
        num_classes: the number of classes of the model, if it is known.

    Returns:
        The three sets. Images without class folders have no class names, and -1 in place of each label.

    Raises:
        BrokenImageError: If a file is no image and `skip_bad` is not set.
        DataError: If a folder is missing or empty; an uncut folder holds fewer than 5 images, images beside folders, or
            folders in folders; `val` has a class that `train` lacks; no whole image is left of a set; or the WordNet
            ids that name the folders don't fit the model.
    """
    root = Path(folder)
    listing = _list_folder(root, seed, skip_bad, num_classes)
    train, selection = hold_out(listing.labels[listing.train], listing.train_folder, seed)
    whole = image_files.whole_files(listing.paths, skip_bad)
    name = root.resolve().name

    def image_set(indices: NDArray[np.int64], part: str) -> ImageSet:
        return listing.image_set(indices, whole[indices], f"{name}/{part}", preprocessing)

    return Splits(
        name=name,
        train=image_set(listing.train[train], "train"),
        selection=image_set(listing.train[selection], "selection"),
        validation=image_set(listing.validation, listing.validation_name),
        num_classes=len(listing.class_names),
        class_names=listing.class_names,
    )


def load_folder_validation(
    folder: str | Path,
    preprocessing: Preprocessing,
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
) -> Labelled:
    """Load the validation images of `load_folder` alone, with the same labels.

    With the seed of a run they are none of the images that the run calibrates or trains with. Only these files are
    looked at; a broken file among the others is no error. A folder that is already cut needs `val` only; if `train` is
    there, its folders number the classes.

    Args:
        folder: as for `load_folder`, like all other arguments.
        preprocessing: the preprocessing of the network.
        seed: the seed of the cut.
        skip_bad: leave out the files that are no whole image.
        num_classes: the number of classes of the model, if it is known.

    Returns:
        The validation images, and how many were left out.

    Raises:
        BrokenImageError: As for `load_folder`, for the validation images.
        DataError: As for `load_folder`.
    """
    root = Path(folder)
    listing = _list_folder(root, seed, skip_bad, num_classes, validation_only=True)
    whole = image_files.whole_files([listing.paths[i] for i in listing.validation], skip_bad)
    name = f"{root.resolve().name}/{listing.validation_name}"
    images = listing.image_set(listing.validation, whole, name, preprocessing)
    return Labelled(images, listing.class_names, int(np.sum(~whole)))


def _list_folder(
    root: Path, seed: int, skip_bad: bool, num_classes: int | None, *, validation_only: bool = False
) -> _Listing:
    # A `train/` that holds images itself is a class, of locomotives.
    splits = [root / split for split in ("train", "val") if is_folder(root / split, DataError)]
    if all(map(_holds_images, splits)):
        return _list_uncut(root, seed, skip_bad, num_classes)
    return _list_cut(root, skip_bad, num_classes, validation_only)


def _holds_images(folder: Path) -> bool:
    """Whether a folder holds images and no folders; a stray file, such as Thumbs.db, decides nothing."""
    entries = image_files.visible(folder)
    return any(map(image_files.is_image, entries)) and not any(entry.is_folder for entry in entries)


def _list_cut(root: Path, skip_bad: bool, num_classes: int | None, validation_only: bool) -> _Listing:
    """List `train/CLASS/IMAGE` and `val/CLASS/IMAGE`, or only the latter."""
    train = {} if validation_only else _list_classes(root, "train", skip_bad)
    validation = _list_classes(root, "val", skip_bad)
    numbering = root / ("train" if is_folder(root / "train", DataError) else "val")
    names = [entry.name for entry in image_files.visible(numbering) if entry.is_folder]
    lacking = sorted(set(validation) - set(names))
    if lacking:
        raise DataError(
            f"{root / 'val'} has classes that {root / 'train'} lacks. Received: {class_numbers.few(lacking)}. "
            "Give train images of the same classes, or remove those folders."
        )
    index, class_names = class_numbers.number_classes(numbering, names, num_classes)
    paths, labels = _flatten((train, validation), index)
    first, second = np.split(np.arange(len(paths)), [sum(map(len, train.values()))])
    return _Listing(paths, labels, class_names, first, second, root / "train", "val")


def _list_classes(root: Path, split: str, skip_bad: bool) -> _Files:
    """List the images of `root/split/CLASS/`."""
    folder = root / split
    if not is_folder(folder, DataError):
        raise DataError(
            f"Can't load images from {root}: it has no {split}/ folder. Received: {str(root)!r}. {_CUT_LAYOUT}"
        )
    entries = image_files.visible(folder)
    stray = next((e for e in entries if image_files.is_image(e)), None)
    if stray is not None:
        raise DataError(f"An image lies outside of a class folder. Received: {stray.path!r}. Move it. {_CUT_LAYOUT}")
    classes = {entry.name: image_files.list_images(Path(entry.path), skip_bad) for entry in entries if entry.is_folder}
    if not classes:
        raise DataError(f"{folder} has no class folder. Received: {str(folder)!r}. {_CUT_LAYOUT}")
    return classes


def _list_uncut(root: Path, seed: int, skip_bad: bool, num_classes: int | None) -> _Listing:
    """List `CLASS/IMAGE` or `IMAGE`, and cut off the validation images."""
    files = _list_photos(root, skip_bad)
    flat = _NO_CLASS in files
    index, class_names = (
        ({_NO_CLASS: UNLABELLED}, ()) if flat else class_numbers.number_classes(root, files, num_classes)
    )
    paths, labels = _flatten((files,), index)
    train, validation = cut_off(labels, root, seed)
    return _Listing(paths, labels, class_names, train, validation, root, "validation")


def _list_photos(root: Path, skip_bad: bool) -> _Files:
    """The images by class folder, or all under `_NO_CLASS` if they lie in the folder itself."""
    entries = image_files.visible(root)
    folders = [Path(entry.path) for entry in entries if entry.is_folder]
    images = [entry.path for entry in entries if image_files.is_image(entry)]
    others = [entry for entry in entries if not entry.is_folder and not image_files.is_image(entry)]
    if not folders and not images:
        received = f"{others[0].path!r}, which is no image" if others else f"{str(root)!r}, which is empty"
        raise DataError(f"There are no images in {root}. Received: {received}. {_UNCUT_LAYOUT}; {_CUT_ALREADY}.")
    image_files.pass_over(others, root, skip_bad)
    if folders and images:
        raise DataError(
            "Images lie beside folders, so it isn't clear whether folders are classes. "
            f"Received: {images[0]!r} beside {str(folders[0])!r}. {_UNCUT_LAYOUT}."
        )
    return {folder.name: _list_class(folder, skip_bad) for folder in folders} if folders else {_NO_CLASS: images}


def _list_class(folder: Path, skip_bad: bool) -> Sequence[str]:
    nested = next((entry.path for entry in image_files.visible(folder) if entry.is_folder), None)
    if nested is not None:
        raise DataError(
            f"A class folder holds a folder, and images are looked for one level deep. Received: {nested!r}. "
            f"{_UNCUT_LAYOUT}; {_CUT_ALREADY}."
        )
    return image_files.list_images(folder, skip_bad)


def _flatten(parts: Sequence[_Files], index: Mapping[str, int]) -> tuple[list[str], NDArray[np.int32]]:
    """The paths of all classes, one class after the other, and the label that `index` has for each."""
    paths = [path for files in parts for images in files.values() for path in images]
    labels = [index[name] for files in parts for name, images in files.items() for _ in images]
    return paths, np.asarray(labels, np.int32)

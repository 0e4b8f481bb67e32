"""A folder of images with a mask for each, paired by name.

    images/IMAGE and masks/IMAGE                     cut here
    train/images, train/masks, val/images, val/masks     already cut

A mask has the name of its image, whatever its suffix, or that name and `_mask`. The folder of masks may have another
of the names in `names.MASKS`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_qat.data import image_files
from keras_qat.data.arrays.parts import TRAIN, VALIDATION
from keras_qat.data.image_listing import ImageListing
from keras_qat.data.image_targets import MaskTargets
from keras_qat.data.masks import are_white
from keras_qat.data.names import IMAGES, MASKS, masks_of
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.signature import Signature
from keras_qat.data.splits import Labelled, Splits
from keras_qat.errors import DataError
from keras_qat.files import is_folder
from keras_qat.text import first_few, path_text

_ENDINGS = ("", "_mask", "-mask")
"""What may stand behind the name of an image in the name of its mask."""

_FOLDERS: Mapping[str, str] = {TRAIN: "train", VALIDATION: "val"}
"""The folder of each part of a set that is cut already."""

_LAYOUT = f"Lay the data out as {IMAGES}/a.jpg and {MASKS[0]}/a.png, or with train/ and val/ above both folders."


def load_masks(
    folder: Path, preprocessing: Preprocessing, seed: int, skip_bad: bool = False, signature: Signature | None = None
) -> Splits:
    """Load images with masks as training, selection and validation images.

    Args:
        folder: the folder that holds `images/` and `masks/`, or `train/` and `val/` with these.
        preprocessing: the preprocessing of the network; masks are fitted to its input as the images are.
        seed: the seed of the cut.
        skip_bad: leave out the images that are broken, or whose masks are.
        signature: what the model answers; its last size is the number of classes.

    Returns:
        The three sets, whose labels are int32 class maps of shape (batch, height, width).

    Raises:
        BrokenImageError: If a file is no image and `skip_bad` is not set.
        DataError: If a mask or an image is missing, their sizes differ, or a mask holds no numbers of classes.
    """
    return _list(folder, skip_bad, signature, tuple(_FOLDERS)).splits(preprocessing, seed, skip_bad)


def load_masks_validation(
    folder: Path, preprocessing: Preprocessing, seed: int, skip_bad: bool = False, signature: Signature | None = None
) -> Labelled:
    """The validation images of `load_masks` alone; a folder that is cut already needs `val/` only.

    Raises:
        BrokenImageError: As for `load_masks`.
        DataError: As for `load_masks`.
    """
    return _list(folder, skip_bad, signature, (VALIDATION,)).validation(preprocessing, seed, skip_bad)


def _list(folder: Path, skip_bad: bool, signature: Signature | None, wanted: tuple[str, ...]) -> ImageListing:
    """The pairs of all wanted parts, or of the whole folder."""
    uncut = is_folder(folder / IMAGES, DataError)
    places = {"": folder} if uncut else {part: folder / _FOLDERS[part] for part in wanted}
    pairs = {part: _pairs(place, skip_bad) for part, place in places.items()}
    paths = [path for listed in pairs.values() for path in listed]
    masks = tuple(mask for listed in pairs.values() for mask in listed.values())
    ends = np.cumsum([len(listed) for listed in pairs.values()])
    indices = np.split(np.arange(len(paths)), ends[:-1])
    whole = image_files.whole_files(masks, skip_bad)
    white = are_white([mask for mask, good in zip(masks, whole, strict=True) if good], _classes(signature))
    return ImageListing(
        name=folder.resolve().name,
        place=path_text(folder),
        paths=paths,
        targets=MaskTargets(masks, white),
        parts={} if uncut else dict(zip(pairs, indices, strict=True)),
    )


def _classes(signature: Signature | None) -> int | None:
    """The number of classes of the model's only output, if it is known."""
    outputs = () if signature is None else signature.outputs
    width = outputs[0].shape[-1] if len(outputs) == 1 else None
    return 2 if width == 1 else width


def _pairs(place: Path, skip_bad: bool) -> dict[str, str]:
    """{image: its mask}, sorted by name."""
    image_folder, mask_folder = place / IMAGES, masks_of(place)
    images, masks = (_by_stem(folder, skip_bad) for folder in (image_folder, mask_folder))
    found = {stem: next((masks[stem + e] for e in _ENDINGS if stem + e in masks), None) for stem in images}
    without = [images[stem] for stem, mask in found.items() if mask is None]
    if without:
        raise DataError(
            f"{len(without)} of {len(images)} images have no mask of the same name in {path_text(mask_folder)}. "
            f"Received: {first_few(map(repr, without))}. Add the masks, or remove the images."
        )
    pairs = {images[stem]: mask for stem, mask in found.items() if mask is not None}
    alone = sorted(set(masks.values()) - set(pairs.values()))
    if alone:
        raise DataError(
            f"{len(alone)} of {len(masks)} masks have no image of the same name in {path_text(image_folder)}. "
            f"Received: {first_few(map(repr, alone))}. Add the images, or remove the masks."
        )
    return pairs


def _by_stem(folder: Path, skip_bad: bool) -> dict[str, str]:
    """{name without suffix: path} of the images of a folder."""
    if not is_folder(folder, DataError):
        raise DataError(f"There is no folder {path_text(folder)}. Received: {str(folder.parent)!r}. {_LAYOUT}")
    entries = image_files.visible(folder)
    image_files.pass_over([entry for entry in entries if not image_files.is_image(entry)], folder, skip_bad)
    paths: dict[str, str] = {}
    for entry in filter(image_files.is_image, entries):
        stem = Path(entry.name).stem
        if stem in paths:
            raise DataError(
                f"Two files of {path_text(folder)} have one name, so it isn't clear which image has which mask. "
                f"Received: {paths[stem]!r} and {entry.path!r}. Rename or remove one of them."
            )
        paths[stem] = entry.path
    if not paths:
        raise DataError(f"There are no images in {path_text(folder)}. Received: {str(folder)!r}. {_LAYOUT}")
    return paths

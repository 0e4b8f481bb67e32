"""A folder of images: `train/` and `val/`, in each of them one folder a class."""

from collections.abc import Iterable
from pathlib import Path

from keras_qat.data.class_folders import few, labelled_files, number_classes
from keras_qat.data.hold_out import hold_out
from keras_qat.data.listing import Files, check_images, is_image, list_images, visible
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.splits import Labelled, Splits
from keras_qat.errors import DataError

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
    most 5000 images, is held out for selection. Names that begin with a dot are ignored. The first bytes of each file
    are looked at when there are at most 20,000; an image that breaks later raises a `DataError` when it is read (see
    `decode_errors`).

    Args:
        folder: holds `train` and `val`.
        preprocessing: of the network.
        seed: of the selection.
        skip_bad: leave out the files that are no whole image, and log how many.
        num_classes: how many classes the model tells apart, if that is known.

    Returns:
        The three sets.

    Raises:
        DataError: a folder is missing or empty, a class of `val` isn't in `train`, a WordNet id isn't
            ImageNet's, the model has other classes than WordNet ids name, or a file is no image.
    """
    root = Path(folder)
    listed = [_list_classes(root, split, skip_bad) for split in ("train", "val")]
    (train, validation), _ = check_images(listed, skip_bad)
    _require_trained(root, train, validation)
    index, class_names = number_classes(root / "train", train, num_classes)
    name = root.resolve().name
    whole = labelled_files(f"{name}/train", train, index, preprocessing)
    kept, selection = hold_out(whole, f"{name}/selection", root / "train", seed)
    return Splits(
        name=name,
        train=kept,
        selection=selection,
        validation=labelled_files(f"{name}/val", validation, index, preprocessing),
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
    (validation,), skipped = check_images([_list_classes(root, "val", skip_bad)], skip_bad)
    numbered: Iterable[str] = validation
    if (root / "train").is_dir():
        numbered = [entry.name for entry in visible(root / "train") if entry.is_dir()]
        _require_trained(root, numbered, validation)
    index, class_names = number_classes(root / "val", numbered, num_classes)
    return Labelled(
        labelled_files(f"{root.resolve().name}/val", validation, index, preprocessing), class_names, skipped
    )


def _list_classes(root: Path, split: str, skip_bad: bool) -> Files:
    """The image files of each class folder, sorted."""
    folder = root / split
    if not folder.is_dir():
        problem = f"it has no {split}/ folder" if root.is_dir() else "there is no such folder"
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

"""A folder of images: `train/` and `val/`, in each of them one folder a class."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from keras_qat.data.decode import IMAGE_SUFFIXES, check_header
from keras_qat.data.hold_out import hold_out
from keras_qat.data.image_set import ImageSet
from keras_qat.data.imagenet import imagenet_classes, is_wnid
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.splits import Labelled, Splits
from keras_qat.errors import DataError

_logger = logging.getLogger(__name__)

# Opening each file costs about 0.1 ms: nothing for a small folder, minutes for the whole of ImageNet.
_HEADERS_CHECKED = 20_000
_LAYOUT = "Lay it out as train/CLASS/IMAGE and val/CLASS/IMAGE."

_Files = Mapping[str, Sequence[str]]


def load_folder(folder: str | Path, preprocessing: Preprocessing, seed: int, skip_bad: bool = False) -> Splits:
    """Load images from `folder/train/CLASS/` and `folder/val/CLASS/`.

    If every class folder is named by a WordNet id (`n01440764`), the labels are ImageNet's 1000; else the
    classes of `train` are numbered in sorted order. A tenth of `train`, at most 5000 images, is held
    out for selection. Names that begin with a dot are ignored. The first bytes of each file are looked at
    when there are at most 20,000; an image that breaks later raises a `DataError` when it is read (see
    `decode_errors`).

    Args:
        folder: holds `train` and `val`.
        preprocessing: of the network.
        seed: of the selection.
        skip_bad: leave out the files whose first bytes are no image's, and log how many.

    Returns:
        The three sets.

    Raises:
        DataError: a folder is missing or empty, a class of `val` isn't in `train`, a WordNet id isn't
            ImageNet's, or a file is no image.
    """
    root = Path(folder)
    (train, validation), _ = _check_headers([_list_classes(root, "train"), _list_classes(root, "val")], skip_bad)
    _require_trained(root, train, validation)
    index, class_names = _number_classes(root / "train", train)
    name = root.resolve().name
    whole = _image_set(f"{name}/train", train, index, preprocessing)
    kept, selection = hold_out(whole, f"{name}/selection", root / "train", seed)
    return Splits(
        name=name,
        train=kept,
        selection=selection,
        validation=_image_set(f"{name}/val", validation, index, preprocessing),
        num_classes=len(class_names),
        class_names=class_names,
    )


def load_folder_validation(folder: str | Path, preprocessing: Preprocessing, skip_bad: bool = False) -> Labelled:
    """Load the images of `folder/val/CLASS/`; `folder/train` gives the numbers of the classes where it is there.

    Args:
        folder: holds `val`.
        preprocessing: of the network.
        skip_bad: as in `load_folder`.

    Returns:
        The validation images.

    Raises:
        DataError: as from `load_folder`, of what is read here.
    """
    root = Path(folder)
    (validation,), skipped = _check_headers([_list_classes(root, "val")], skip_bad)
    numbered: Iterable[str] = validation
    if (root / "train").is_dir():
        numbered = [entry.name for entry in _visible(root / "train") if entry.is_dir()]
        _require_trained(root, numbered, validation)
    index, class_names = _number_classes(root / "val", numbered)
    return Labelled(_image_set(f"{root.resolve().name}/val", validation, index, preprocessing), class_names, skipped)


def _list_classes(root: Path, split: str) -> _Files:
    """The image files of each class folder, sorted."""
    folder = root / split
    if not folder.is_dir():
        problem = f"it has no {split}/ folder" if root.is_dir() else "there is no such folder"
        raise DataError(f"Can't load images from {root}: {problem}. Received: {str(root)!r}. {_LAYOUT}")
    entries = _visible(folder)
    stray = next((e for e in entries if e.is_file() and _is_image_name(e.name)), None)
    if stray is not None:
        raise DataError(f"An image lies outside of a class folder. Received: {stray.path!r}. Move it. {_LAYOUT}")
    classes = {entry.name: _list_images(Path(entry.path)) for entry in entries if entry.is_dir()}
    if not classes:
        raise DataError(f"{folder} has no class folder. Received: {str(folder)!r}. {_LAYOUT}")
    return classes


def _list_images(folder: Path) -> Sequence[str]:
    entries = _visible(folder)
    if not entries:
        raise DataError(
            f"The class folder {folder} has no image. Received: {str(folder)!r}. Add images, or remove the folder."
        )
    for entry in entries:
        if not (_is_image_name(entry.name) and entry.is_file()):
            raise DataError(
                f"A class folder holds something that isn't an image. Received: {entry.path!r}. "
                f"Move it away; files named {', '.join(sorted(IMAGE_SUFFIXES))} are read."
            )
    return [entry.path for entry in entries]


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DataError(
            f"Can't list {folder}: {error.strerror}. Received: {str(folder)!r}. Make the folder readable."
        ) from error


def _is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a Path for each of a million names


def _check_headers(splits: Sequence[_Files], skip_bad: bool) -> tuple[Sequence[_Files], int]:
    """The files whose header is an image's, and how many aren't; all of them where there are too many to look."""
    if sum(len(paths) for split in splits for paths in split.values()) > _HEADERS_CHECKED:
        return splits, 0
    paths = [path for split in splits for paths in split.values() for path in paths]
    bad = {path: error for path in paths if (error := _header_error(path)) is not None}
    if not bad:
        return splits, 0
    first = next(iter(bad.values()))
    if not skip_bad:
        raise first
    _logger.warning("%d file(s) that are no image are left out. The first: %s", len(bad), first)
    kept = [{name: [path for path in paths if path not in bad] for name, paths in split.items()} for split in splits]
    return kept, len(bad)


def _header_error(path: str) -> DataError | None:
    try:
        check_header(path)
    except DataError as error:
        return error
    return None


def _require_trained(root: Path, train: Iterable[str], validation: Iterable[str]) -> None:
    lacking = sorted(set(validation) - set(train))
    if lacking:
        raise DataError(
            f"{root / 'val'} has classes that {root / 'train'} lacks. Received: {_few(lacking)}. "
            "Give train images of the same classes, or remove those folders."
        )


def _number_classes(folder: Path, names: Iterable[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The label of each class folder of `folder`, and the names of all classes."""
    names = tuple(names)
    if not all(map(is_wnid, names)):
        return {name: i for i, name in enumerate(names)}, names
    classes = imagenet_classes()
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise DataError(
            f"{folder} has WordNet ids that aren't among ImageNet's 1000 classes. "
            f"Received: {_few(unknown)}. "
            "Remove those folders, or name the classes in words for a network of your own."
        )
    return {wnid: i for i, wnid in enumerate(classes)}, tuple(classes.values())


def _image_set(name: str, files: _Files, index: Mapping[str, int], preprocessing: Preprocessing) -> ImageSet:
    labels = [index[class_name] for class_name, paths in files.items() for _ in paths]
    return ImageSet.from_files(name, [p for paths in files.values() for p in paths], labels, preprocessing)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown  # noqa: PLR2004

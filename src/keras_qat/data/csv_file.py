"""A CSV file of paths of images and their labels.

    path                        images without labels
    path,name or number         classes
    path,number,number …        a regression
    path,path of a mask         class maps

Paths are relative to the file. A first line whose first cell is no image is a header; a column that it calls `split`
says which part an image belongs to.
"""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_qat.data.arrays import fitting
from keras_qat.data.arrays.parts import PARTS
from keras_qat.data.arrays.rows import ArrayRows, require_finite
from keras_qat.data.image_files import IMAGE_SUFFIXES
from keras_qat.data.image_listing import ImageListing
from keras_qat.data.image_targets import MaskTargets, NumberTargets
from keras_qat.data.masks import are_white
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.signature import Signature
from keras_qat.data.splits import Labelled, Splits
from keras_qat.errors import DataError, StorageError
from keras_qat.files import is_file, read_text
from keras_qat.text import path_text

_DELIMITERS = ",;\t"
_SPLIT = frozenset({"split", "subset", "partition"})
"""The names of a column that says the part of each image."""

_FORMAT = (
    "Give a path of an image in the first column, relative to the file, and behind it a class, numbers, or the path of "
    "a mask"
)

_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class _Table:
    """The cells of a CSV file.

    Args:
        path: the file.
        lines: the number of the line of each row, for messages.
        images: the first cell of each row.
        columns: the cells of each column of labels.
        parts: the cells of the column that says the part; empty if there is none.
    """

    path: Path
    lines: Sequence[int]
    images: Sequence[str]
    columns: Sequence[Sequence[str]]
    parts: Sequence[str]

    def error(self, row: int, problem: str, received: str, advice: str = _FORMAT) -> DataError:
        """The error of a row, which says its line."""
        return DataError(
            f"{problem} in line {self.lines[row]} of {path_text(self.path)}. Received: {received}. {advice}."
        )

    def file_at(self, cell: str) -> str:
        """The path that a cell names."""
        return str(self.path.parent / cell)


def load_csv(
    path: Path,
    preprocessing: Preprocessing,
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
    signature: Signature | None = None,
) -> Splits:
    """Load the images that a CSV file lists.

    Args:
        path: the file, in UTF-8, separated by commas, semicolons or tabs.
        preprocessing: the preprocessing of the network.
        seed: the seed of the cut.
        skip_bad: leave out the images that are broken.
        num_classes: the number of classes of the model, if it is known.
        signature: what the model answers; it says whether numbers are classes.

    Raises:
        BrokenImageError: If a file is no image and `skip_bad` is not set.
        DataError: If the file can't be understood, an image is missing, or labels don't fit the model.
    """
    return _list(path, num_classes, signature).splits(preprocessing, seed, skip_bad)


def load_csv_validation(
    path: Path,
    preprocessing: Preprocessing,
    seed: int,
    skip_bad: bool = False,
    num_classes: int | None = None,
    signature: Signature | None = None,
) -> Labelled:
    """The validation images of `load_csv` alone. Arguments are those of `load_csv`.

    Raises:
        BrokenImageError: As for `load_csv`.
        DataError: As for `load_csv`.
    """
    return _list(path, num_classes, signature).validation(preprocessing, seed, skip_bad)


def _list(path: Path, num_classes: int | None, signature: Signature | None) -> ImageListing:
    table = _read(path)
    paths = [table.file_at(cell) for cell in table.images]
    for row, image in enumerate(paths):
        if not is_file(Path(image), DataError):
            raise table.error(row, "An image isn't there", repr(image))
    listing = ImageListing(path.resolve().stem, path_text(path), paths, parts=_parts(table))
    return _labelled(listing, table, num_classes, signature)


def _read(path: Path) -> _Table:
    try:
        text = read_text(path).removeprefix(_BYTE_ORDER_MARK)
    except StorageError as error:
        raise DataError(f"{error} Data are listed as CSV in UTF-8.") from error
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except csv.Error as error:
        raise DataError(
            f"Can't read {path_text(path)}: {error}. Received: {str(path)!r}. Write it as CSV in UTF-8."
        ) from error
    header = [] if not rows or _names_image(rows[0][1][0]) else rows[0][1]
    body = rows[1:] if header else rows
    if not body:
        raise DataError(f"{path_text(path)} lists no image. Received: {str(path)!r}. {_FORMAT}.")
    # The nameless first column that pandas writes counts rows.
    begin = 1 if header[:1] == [""] else 0
    width = len(header) or len(body[0][1])
    uneven = next(((line, row) for line, row in body if len(row) != width), None)
    if uneven is not None:
        raise DataError(
            f"All lines of {path_text(path)} must have as many cells as the first, {width}. Received: "
            f"{len(uneven[1])} in line {uneven[0]}. {_FORMAT}."
        )
    columns = list(zip(*(row for _, row in body), strict=True))
    split = next((i for i, name in enumerate(header) if name.lower() in _SPLIT and i > begin), None)
    labels = [cells for i, cells in enumerate(columns) if i > begin and i != split]
    lines = [line for line, _ in body]
    table = _Table(path, lines, columns[begin], labels, () if split is None else columns[split])
    stray = next((row for row, cell in enumerate(table.images) if not _names_image(cell)), None)
    if stray is not None:
        advice = "Tables of numbers are read as arrays: save them with `numpy.savez`, or name a function of yours"
        raise table.error(stray, "The first column names no image", repr(table.images[stray]), f"{_FORMAT}. {advice}")
    return table


def _names_image(cell: str) -> bool:
    return Path(cell).suffix.lower() in IMAGE_SUFFIXES


def _parts(table: _Table) -> Mapping[str, np.ndarray]:
    """{part: the rows of its images}."""
    unknown = next((row for row, cell in enumerate(table.parts) if cell.lower() not in PARTS), None)
    if unknown is not None:
        raise table.error(
            unknown, "The part of an image is unknown", repr(table.parts[unknown]), "Give train, val or test"
        )
    parts = np.asarray([PARTS[cell.lower()] for cell in table.parts])
    return {str(part): np.flatnonzero(parts == part) for part in np.unique(parts)}


_WHOLE = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf(inity)?)", re.IGNORECASE)


def _are_numbers(columns: Sequence[Sequence[str]]) -> bool:
    return all(_FLOAT.fullmatch(cell) for cells in columns for cell in cells)


def _are_masks(columns: Sequence[Sequence[str]]) -> bool:
    return len(columns) == 1 and all(map(_names_image, columns[0]))


_Label = Callable[[ImageListing, _Table, int | None, Signature | None], ImageListing]


def _unlabelled(listing: ImageListing, _table: _Table, _num_classes: int | None, _: Signature | None) -> ImageListing:
    return listing


def _numbers(
    listing: ImageListing, table: _Table, num_classes: int | None, signature: Signature | None
) -> ImageListing:
    """Classes or a regression, as the model's output and the numbers say."""
    whole = len(table.columns) == 1 and all(map(_WHOLE.fullmatch, table.columns[0]))
    columns = [np.asarray(cells, np.float64) for cells in table.columns]
    values = columns[0].astype(np.int64) if whole else np.stack(columns, -1).astype(np.float32)
    place = f"The labels of {path_text(table.path)}"
    require_finite(values, place)
    rows = fitting.fit_targets([ArrayRows(values, place)], signature, listing.name)[0]
    fitted = rows.read(np.arange(len(values)))
    if not fitting.are_classes(rows):
        return replace(listing, targets=NumberTargets(np.asarray(fitted, np.float32)))
    width = signature.outputs[0].shape[-1] if signature is not None and signature.outputs else None
    count = (2 if width == 1 else width) or num_classes or 1 + int(fitted.max())
    fitting.require_classes(fitted, count, place)
    return replace(listing, labels=np.asarray(fitted, np.int32), class_names=tuple(map(str, range(count))))


def _masks(listing: ImageListing, table: _Table, _: int | None, signature: Signature | None) -> ImageListing:
    masks = tuple(table.file_at(cell) for cell in table.columns[0])
    missing = next((row for row, mask in enumerate(masks) if not is_file(Path(mask), DataError)), None)
    if missing is not None:
        raise table.error(missing, "A mask isn't there", repr(masks[missing]))
    outputs = () if signature is None else signature.outputs
    width = outputs[0].shape[-1] if len(outputs) == 1 else None
    return replace(listing, targets=MaskTargets(masks, are_white(masks, 2 if width == 1 else width)))


def _names(listing: ImageListing, table: _Table, _: int | None, __: Signature | None) -> ImageListing:
    if len(table.columns) > 1:
        mixed = next(cells for cells in table.columns if not _are_numbers([cells]))
        row = next(row for row, cell in enumerate(mixed) if not _FLOAT.fullmatch(cell))
        raise table.error(row, "Several columns of labels must be numbers, and one isn't", repr(mixed[row]))
    names = sorted(set(table.columns[0]))
    index = {name: i for i, name in enumerate(names)}
    labels = np.asarray([index[name] for name in table.columns[0]], np.int32)
    return replace(listing, labels=labels, class_names=tuple(names))


_LABELS: tuple[tuple[Callable[[Sequence[Sequence[str]]], bool], _Label], ...] = (
    (lambda columns: not columns or all(not cell for cells in columns for cell in cells), _unlabelled),
    (_are_numbers, _numbers),
    (_are_masks, _masks),
    (lambda _: True, _names),
)
"""(whether the columns of labels are of this kind, how they are read); the first match applies."""


def _labelled(
    listing: ImageListing, table: _Table, num_classes: int | None, signature: Signature | None
) -> ImageListing:
    label = next(label for accepts, label in _LABELS if accepts(table.columns))
    gap = next(((r, c) for c, cells in enumerate(table.columns) for r, cell in enumerate(cells) if not cell), None)
    if gap is not None and label is not _unlabelled:
        raise table.error(gap[0], f"The label in column {gap[1] + 2} is missing", "an empty cell")
    return label(listing, table, num_classes, signature)

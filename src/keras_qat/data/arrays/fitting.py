"""Arrays that fit a model: checked against the shapes and types of its inputs and outputs, and converted to them.

What labels say is told by their shape and by that of the output that they are for, C being its last size:

    (n,) or (n, 1), whole numbers, output (?, C), C > 1      classes
    (n,) or (n, 1), only 0 and 1, output (?, 1)              two classes
    (n, …, C) of one-hot rows, output (?, …, C), C > 1       classes, or classes of positions
    (n, …) or (n, …, 1), whole numbers, output (?, …, C)     classes of positions
    any other numbers of the output's shape                  a regression

Where the output isn't known, integers are classes and floats a regression.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.arrays.rows import NUMBERS, ConvertedRows, Rows, blocks, require_all_finite
from keras_qat.data.signature import ArraySpec, Signature, shape_text, sizes_fit
from keras_qat.errors import DataError
from keras_qat.types import UNLABELLED, TaskKind

IGNORED = 255
"""The label of a position without a class, as PASCAL VOC has it; -1 is another."""

_INT, _FLOAT = np.dtype(np.int32), np.dtype(np.float32)

_MATRIX = 2
"""Axes of (samples, numbers)."""


def are_classes(rows: Rows) -> bool:
    """Whether labels are the classes of whole samples."""
    return rows.dtype.kind in "iub" and len(rows.shape) == 1


def kind_of_labels(rows: Rows) -> TaskKind:
    """What fitted labels say: classes of whole samples, classes of their positions, or other numbers."""
    if rows.dtype.kind not in "iub":
        return "regression"
    return "classification" if are_classes(rows) else "segmentation"


def require_same_length(arrays: Sequence[Rows], name: str) -> None:
    """Refuse arrays of different lengths, and empty ones.

    Raises:
        DataError: If they hold no sample, or one holds more samples than another.
    """
    scalar = next((rows for rows in arrays if not rows.shape), None)
    if scalar is not None:
        raise DataError(
            f"The first axis of an array counts samples. Received: {scalar.place}, a single number. Give an array of "
            "shape (samples, …)."
        )
    lengths = {rows.place: rows.shape[0] for rows in arrays}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{length} in {place}" for place, length in lengths.items())
        raise DataError(
            f"The arrays of {name} have different numbers of samples. Received: {listed}. Give a row of each array for "
            "every sample."
        )
    if not arrays or not arrays[0].shape[0]:
        raise DataError(f"{name} holds no sample. Received: an empty array. Give at least 5, better some hundreds.")


def fit_inputs(inputs: Sequence[Rows], signature: Signature | None, name: str) -> tuple[Rows, ...]:
    """Inputs as a model reads them: of its types, and with or without a last axis of size 1.

    Args:
        inputs: an array for each input.
        signature: what the model reads; if it isn't known, only the numbers are checked.
        name: what a message calls the data.

    Raises:
        DataError: If an array doesn't fit its input, isn't of numbers, or holds a number that is not finite.
    """
    for rows in inputs:
        _require_numbers(rows)
    if signature is not None and len(signature.inputs) != len(inputs):
        raise DataError(
            f"The model has {_inputs_text(signature)}. Received: {len(inputs)} input array(s) of {name}. Give an array "
            "for each input, under its name."
        )
    fitted = inputs if signature is None else tuple(map(_fit_input, inputs, signature.inputs))
    for rows in fitted:
        require_all_finite(rows)
    return tuple(fitted)


def _inputs_text(signature: Signature) -> str:
    return f"{len(signature.inputs)} input(s), {', '.join(map(str, signature.inputs))}"


def _fit_input(rows: Rows, spec: ArraySpec) -> Rows:
    wanted, received = spec.shape[1:], rows.shape[1:]
    shape = next((s for s in (received, (*received, 1), _without_last(received)) if sizes_fit(wanted, s)), None)
    if shape is None:
        raise DataError(
            f"{rows.place} doesn't fit the input {spec.name!r} of the model, which takes {shape_text(spec.shape)}. "
            f"Received: an array of shape {rows.shape}. {_advice(wanted, rows.shape)}"
        )
    dtype = np.dtype(spec.dtype)
    if shape == received and dtype == rows.dtype:
        return rows

    def convert(array: NDArray[Any]) -> NDArray[Any]:
        return _cast(array, dtype, rows.place).reshape(len(array), *shape)

    for block in blocks(rows) if dtype.kind != "f" else ():
        convert(block)
    return ConvertedRows(rows, shape, dtype, convert)


def _without_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its last axis, if that has one element; such a shape stays as it is otherwise."""
    return shape[:-1] if shape[-1:] == (1,) else shape


def _advice(wanted: Sequence[int | None], received: tuple[int, ...]) -> str:
    if sizes_fit(wanted, received):
        return "This is one sample without a batch axis: add it with `x[np.newaxis]`, and give many samples."
    if len(received) > _MATRIX and sizes_fit(wanted, (*received[2:], received[1])):
        return "The channels seem to come first: `np.moveaxis(x, 1, -1)` puts them last."
    return "Give arrays as they are fed to the model, of the size, axes and preprocessing of training."


def _cast(array: NDArray[Any], dtype: np.dtype, place: str) -> NDArray[Any]:
    """An array of another type. Whole numbers that are to be integers may be floats, and must be in range."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(cast, array):
        raise DataError(
            f"{place} doesn't fit the type {dtype} that the model reads. Received: {array.dtype} numbers from "
            f"{array.min()} to {array.max()}. Give whole numbers that {dtype} can hold."
        )
    return cast


def _require_numbers(rows: Rows) -> None:
    if rows.dtype.kind not in NUMBERS:
        raise DataError(
            f"{rows.place} must hold numbers. Received: an array of type {rows.dtype}. Give numbers: classes that have "
            "names are numbered from 0 on, in sorted order."
        )


def fit_targets(targets: Sequence[Rows], signature: Signature | None, name: str) -> tuple[Rows, ...]:
    """Labels as the stages read them: int32 classes, int32 classes of positions, or float32 numbers.

    Args:
        targets: an array for each output, or none.
        signature: what the model answers.
        name: what a message calls the data.

    Raises:
        DataError: If labels don't fit their output, are out of range, or aren't finite.
    """
    for rows in targets:
        _require_numbers(rows)
        require_all_finite(rows)
    outputs = signature.outputs if signature is not None else ()
    if not targets or not outputs:
        return tuple(map(_fit_unknown, targets))
    if len(targets) != len(outputs):
        raise DataError(
            f"The model has {len(outputs)} output(s), {', '.join(map(str, outputs))}. Received: labels for "
            f"{len(targets)} in {name}. Give labels for each output, under its name, or none at all."
        )
    return tuple(map(fit_target, targets, outputs))


def _fit_unknown(rows: Rows) -> Rows:
    squeezed = _without_last(rows.shape[1:]) if len(rows.shape) == _MATRIX else rows.shape[1:]
    if rows.dtype.kind in "iub":
        return _converted(rows, squeezed, _INT)
    return _converted(rows, rows.shape[1:], _FLOAT)


def fit_target(rows: Rows, output: ArraySpec) -> Rows:
    """The labels of one output, by the table above.

    Args:
        rows: the labels as they are stored.
        output: the output that they are for.

    Raises:
        DataError: If they don't fit the output, or are out of range.

    Example:
        >>> from keras_qat.data.arrays.rows import ArrayRows
        >>> rows = ArrayRows(np.array([[2], [0]], "uint8"), "'y'")
        >>> fit_target(rows, ArraySpec("scores", (None, 3))).read(np.arange(2))
        array([2, 0], dtype=int32)
    """
    received, wanted = rows.shape[1:], output.shape[1:]
    classes = wanted[-1] if wanted else None
    if received in ((), (1,)) and len(output.shape) == _MATRIX and classes != 1 and (classes or rows.dtype.kind != "f"):
        return _classes(rows, output, ())
    if sizes_fit(wanted, received) or sizes_fit(wanted, (*received, 1)):
        return _of_output_shape(rows, output)
    positions = next((s for s in (received, _without_last(received)) if sizes_fit(wanted[:-1], s)), None)
    if positions is None or not wanted:
        raise DataError(
            f"{rows.place} doesn't fit the output {output.name!r} of the model, of shape {shape_text(output.shape)}. "
            f"Received: labels of shape {rows.shape}. Give a class for each sample or position, or numbers of the "
            "output's shape."
        )
    return _classes(rows, output, positions)


def _of_output_shape(rows: Rows, output: ArraySpec) -> Rows:
    """Labels of the very shape of the output: one-hot rows, marks of two classes, or the numbers of a regression."""
    classes, sizes = output.shape[-1], rows.shape[1:]
    if classes == 1:
        positions = _without_last(sizes) if len(sizes) == len(output.shape) - 1 else sizes
        if all(_is_binary(block) for block in blocks(rows)):
            return _classes(rows, output, positions)
        return _converted(rows, (*positions, 1), _FLOAT)
    if sizes and sizes[-1] > 1 and all(_is_one_hot(block) for block in blocks(rows)):
        return ConvertedRows(rows, sizes[:-1], _INT, lambda array: array.argmax(-1).astype(_INT))
    return _converted(rows, sizes, _FLOAT)


def _is_binary(array: NDArray[Any]) -> bool:
    """Whether all numbers are 0 and 1 (with positions that are left out), or all are 0 and 255."""
    marks = (array == 0) | (array == 1)
    if array.ndim > 1 and array.shape[1:] != (1,):
        return bool(np.all(marks | (array == UNLABELLED) | (array == IGNORED)))
    return bool(np.all(marks))


def _is_one_hot(array: NDArray[Any]) -> bool:
    return bool(np.all((array == 0) | (array == 1)) and np.all(array.sum(-1) == 1))


def _classes(rows: Rows, output: ArraySpec, positions: tuple[int, ...]) -> Rows:
    """Classes of samples, or of their positions, that are within the output's number of classes."""
    count = {None: None, 1: 2}.get(output.shape[-1], output.shape[-1])
    white = bool(positions) and count == 2 and _is_white(rows)  # noqa: PLR2004
    for block in () if white else blocks(rows):
        require_classes(block, count, rows.place, maps=bool(positions))

    def convert(array: NDArray[Any]) -> NDArray[Any]:
        marks = array == IGNORED if white else array
        return marks.astype(_INT).reshape(len(array), *positions)

    return ConvertedRows(rows, positions, _INT, convert)


def _is_white(rows: Rows) -> bool:
    """Whether masks of two classes are black and white: 0 and 255, and nothing else."""
    any_white = False
    for block in blocks(rows):
        white = block == IGNORED
        if not np.all((block == 0) | white):
            return False
        any_white = any_white or bool(np.any(white))
    return any_white


def require_classes(array: NDArray[Any], count: int | None, place: str, *, maps: bool = False) -> None:
    """Refuse labels that are no numbers of classes.

    Args:
        array: labels.
        count: the number of classes; `None` if it isn't known.
        place: what a message calls them.
        maps: whether they are classes of positions, of which some may have none (-1 and 255).

    Raises:
        DataError: If a label isn't whole, or out of range.
    """
    known = array[(array != UNLABELLED) & (array != IGNORED)] if maps else array[array != UNLABELLED]
    if not known.size:
        return
    if known.dtype.kind == "f" and not np.all(known == np.rint(known)):
        bad = known[known != np.rint(known)].flat[0]
        raise DataError(
            f"{place} must hold numbers of classes, which are whole. Received: {bad:g}. Give integers, or for a "
            "regression numbers of the output's shape."
        )
    least, most = int(known.min()), int(known.max())
    if least < 0 or (count is not None and most >= count):
        one_based = least >= 1 and most == count
        advice = "Subtract 1 from labels that count from 1." if one_based else "Number the classes from 0 on."
        last = "on" if count is None else f"to {count - 1}"
        raise DataError(
            f"{place} holds labels that no class of the model is for: they go from 0 {last}. Received: labels from "
            f"{least} to {most}. {advice}"
        )


def _converted(rows: Rows, sizes: tuple[int, ...], dtype: np.dtype) -> Rows:
    if rows.dtype == dtype and rows.shape[1:] == sizes:
        return rows
    return ConvertedRows(rows, sizes, dtype, lambda array: array.astype(dtype).reshape(len(array), *sizes))

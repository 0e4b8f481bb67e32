"""Named arrays → inputs and labels of each part of a data set, and the parts cut into those that train and judge.

A name says the part and the role of an array, such as `x_train`, `train_images`, `test/y` or `left`:

    part    train; val, valid, validation; test; or none: the data set is cut here, as folders of images are
    role    the name of an input or output of the model; x, images, inputs, data; y, labels, targets, masks
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from keras_qat.data.arrays import fitting
from keras_qat.data.arrays.array_set import ArraySet
from keras_qat.data.arrays.rows import Rows
from keras_qat.data.signature import Signature
from keras_qat.data.splits import Labelled, Splits, cut_off, hold_out
from keras_qat.errors import DataError
from keras_qat.text import first_few

WHOLE, TRAIN, VALIDATION, TEST = "", "train", "validation", "test"
"""The parts of a data set; the whole of it has none."""

PARTS: Mapping[str, str] = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
}
"""The part by each of its names."""

_X = ("x", "images", "image", "inputs", "input", "data", "arr_0")
_Y = ("y", "labels", "label", "targets", "target", "masks", "mask", "arr_1")
"""Names of the only input and of the only output, in lower case. `numpy.savez(path, x, y)` calls them arr_0, arr_1."""

_BEFORE = re.compile(rf"(?P<part>{'|'.join(PARTS)})[_/.-](?P<role>.+)", re.IGNORECASE)
_BEHIND = re.compile(rf"(?P<role>.+)[_/.-](?P<part>{'|'.join(PARTS)})", re.IGNORECASE)

NAMING = (
    "x and y; x_train, y_train, x_test and y_test (or x_val and y_val); or the names of the model's inputs and outputs"
)
"""The names that are understood, for messages."""

_MOST_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Arrays:
    """The arrays of one part.

    Args:
        inputs: one for each input.
        targets: one for each output; none where there are no labels.
    """

    inputs: tuple[Rows, ...]
    targets: tuple[Rows, ...] = ()


def part_and_role(key: str, known: Iterable[str] = ()) -> tuple[str, str]:
    """What the name of an array says.

    Args:
        key: the name.
        known: the names of the model's inputs and outputs, which aren't taken apart.

    Returns:
        The part, and the rest of the name.

    Example:
        >>> part_and_role("x_train"), part_and_role("test/labels"), part_and_role("left")
        (('train', 'x'), ('test', 'labels'), ('', 'left'))
    """
    found = None if key in known else _BEHIND.fullmatch(key) or _BEFORE.fullmatch(key)
    return (PARTS[found["part"].lower()], found["role"]) if found else (WHOLE, key)


def is_role(name: str, signature: Signature | None) -> bool:
    """Whether a name, without its part, says what an array is for.

    Example:
        >>> is_role("x", None), is_role("sample17", None)
        (True, False)
    """
    known = () if signature is None else (*signature.input_names, *signature.output_names)
    return name in known or name.lower() in {*_X, *_Y}


def by_part(arrays: Mapping[str, Rows], signature: Signature | None, place: str) -> dict[str, Arrays]:
    """Sort named arrays into parts, inputs and labels. Names that say nothing are passed over.

    Args:
        arrays: the arrays by their names.
        signature: what the model reads and answers, if it is known.
        place: what a message calls the data, such as a path.

    Raises:
        DataError: If the names don't say which array is for which input.
    """
    known = () if signature is None else (*signature.input_names, *signature.output_names)
    named: dict[str, dict[str, Rows]] = {}
    for key, rows in arrays.items():
        part, role = part_and_role(key, known)
        named.setdefault(part, {})[role] = rows
    parts = {part: _arrange(roles, signature, only=len(arrays) == 1) for part, roles in named.items()}
    found = {part: arranged for part, arranged in parts.items() if arranged is not None}
    if not found:
        raise _unknown_names(list(arrays), signature, place)
    if WHOLE in found and len(found) > 1:
        raise DataError(
            f"It isn't clear which arrays of {place} train: some are cut into parts and some aren't. Received: "
            f"{_listed(arrays)}. Name them {NAMING}."
        )
    _require_labels_alike(found, place)
    return found


def _arrange(roles: Mapping[str, Rows], signature: Signature | None, *, only: bool) -> Arrays | None:
    """The arrays of one part; `None` if its names don't say which array is which input. An only array is the input."""
    names = ("x",) if signature is None else signature.input_names
    inputs = [roles.get(name) for name in names]
    if None in inputs and len(names) == 1:
        inputs = [_first(roles, _X) or (next(iter(roles.values())) if only else None)]
        if inputs[0] is not None and _first(roles, _Y) is inputs[0]:
            return None
    found = tuple(rows for rows in inputs if rows is not None)
    if len(found) < len(names):
        return None
    outputs = () if signature is None else signature.output_names
    targets = tuple(roles[name] for name in outputs if name in roles and roles[name] not in found)
    if not targets and len(outputs) <= 1:
        label = _first(roles, _Y)
        targets = () if label is None else (label,)
    return Arrays(found, targets)


def _first(roles: Mapping[str, Rows], names: Iterable[str]) -> Rows | None:
    lower = {role.lower(): rows for role, rows in roles.items()}
    return next((lower[name] for name in names if name in lower), None)


def _listed(arrays: Iterable[str]) -> str:
    return first_few(map(repr, arrays), _MOST_SHOWN) or "no array"


def _unknown_names(keys: list[str], signature: Signature | None, place: str) -> DataError:
    inputs = () if signature is None else signature.input_names
    reads = f"the inputs of the model, {first_few(map(repr, inputs))}" if len(inputs) > 1 else "the input of the model"
    return DataError(
        f"The names of the arrays of {place} don't say which is for {reads}. Received: {_listed(keys)}. Name them "
        f"{NAMING}."
    )


def _require_labels_alike(parts: Mapping[str, Arrays], place: str) -> None:
    """Refuse parts of which only some have labels."""
    without = [part for part, arrays in parts.items() if not arrays.targets]
    if 0 < len(without) < len(parts):
        raise DataError(
            f"Only some parts of {place} have labels. Received: no labels for {first_few(without)}. Give labels for "
            "all parts, or for none."
        )


def splits_of(
    name: str, parts: Mapping[str, Arrays], signature: Signature | None, seed: int, num_classes: int | None = None
) -> Splits:
    """Cut a data set into samples that train, choose the best epoch, and judge.

    Parts that are there are kept: `test` judges, or `validation` if there is no `test`. If both are there, `validation`
    chooses the best epoch; if not, a tenth of `train` does. A whole data set, or one that has `train` alone, is cut as
    a folder of images is: a fifth judges, at most 1000 samples, and a tenth of the others, at most 5000, is held out
    for selection, both stratified by class.

    Args:
        name: what a report calls the data set.
        parts: the arrays of each part.
        signature: what the model reads and answers.
        seed: the seed of the cut.
        num_classes: the number of classes of the model, if it is known.

    Raises:
        DataError: If arrays don't fit the model, or a part has too few samples.
    """
    whole = _whole(parts)
    if whole is None:
        judge = _judge(parts, name)
        if TRAIN not in parts:
            raise DataError(
                f"{name} has nothing that trains or calibrates. Received: {_listed(parts)}. Name arrays {NAMING}."
            )
        validation = _set(f"{name}/{judge}", parts[judge], signature)
        train = _set(f"{name}/train", parts[TRAIN], signature)
    else:
        samples = _set(name, whole, signature)
        rest, judging = cut_off(samples.labels, name, seed, "sample")
        train, validation = samples.select(rest, f"{name}/train"), samples.select(judging, f"{name}/validation")
    if TEST in parts and VALIDATION in parts:
        selection = _set(f"{name}/selection", parts[VALIDATION], signature)
    else:
        kept, held_out = hold_out(train.labels, name, seed, "sample")
        train, selection = train.select(kept), train.select(held_out, f"{name}/selection")
    classes = _class_names((train, selection, validation), signature, num_classes, all_known=True)
    return Splits(name, train, selection, validation, len(classes), classes)


def validation_of(
    name: str, parts: Mapping[str, Arrays], signature: Signature | None, seed: int, num_classes: int | None = None
) -> Labelled:
    """The samples of `splits_of(…).validation` alone; nothing but them is needed. Arguments are those of `splits_of`.

    Raises:
        DataError: If arrays don't fit the model.
    """
    whole = _whole(parts)
    if whole is None:
        judge = _judge(parts, name)
        samples = _set(f"{name}/{judge}", parts[judge], signature)
    else:
        samples = _set(name, whole, signature)
        samples = samples.select(cut_off(samples.labels, name, seed, "sample")[1], f"{name}/validation")
    return Labelled(samples, _class_names((samples,), signature, num_classes, all_known=False))


def _whole(parts: Mapping[str, Arrays]) -> Arrays | None:
    """The arrays that are to be cut: the whole set, or its training part if there is no other."""
    return parts.get(WHOLE) or (parts[TRAIN] if set(parts) == {TRAIN} else None)


def _judge(parts: Mapping[str, Arrays], name: str) -> str:
    """The part that judges."""
    judge = next((part for part in (TEST, VALIDATION) if part in parts), None)
    if judge is None:
        raise DataError(f"{name} has nothing to judge by. Received: {_listed(parts)}. Name arrays {NAMING}.")
    return judge


def _set(name: str, arrays: Arrays, signature: Signature | None) -> ArraySet:
    return ArraySet.fitted(name, arrays.inputs, arrays.targets, signature)


def _class_names(
    sets: Iterable[ArraySet], signature: Signature | None, num_classes: int | None, *, all_known: bool
) -> tuple[str, ...]:
    """A name for each class, its number; none where labels aren't classes of whole samples.

    Args:
        sets: the sets with the labels.
        signature: what the model answers.
        num_classes: the number of classes of the model, if it is known.
        all_known: whether the labels tell how many classes there are, if nothing else does.
    """
    sets = tuple(sets)
    if not all(len(data.targets) == 1 and fitting.are_classes(data.targets[0]) for data in sets):
        return ()
    width = signature.outputs[0].shape[-1] if signature is not None and signature.outputs else None
    count = (2 if width == 1 else width) or num_classes
    if not count and all_known:
        count = 1 + max(int(data.labels.max(initial=-1)) for data in sets)
    return tuple(map(str, range(count or 0)))

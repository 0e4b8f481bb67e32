"""The tasks of a run: what each output of its model says, as the user names it, or else as model and labels show it."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_qat import graph
from keras_qat.errors import UnsupportedModelError, UserError
from keras_qat.graph import Trace
from keras_qat.run.settings import TASK_FORMS, parse_tasks
from keras_qat.types import UNLABELLED, OutputTask, TaskKind


def choose_tasks(model: Trace, given: Sequence[str] = (), labels: Any = None) -> tuple[OutputTask, ...]:
    """What each output of a model says.

    Args:
        model: the traced model.
        given: as for `parse_tasks`. What it says nothing about is read from the model and the labels.
        labels: labels of a few inputs: an array, or for several outputs one array each; `None` if there are none. Whole
            numbers, other than -1 alone, make scores of classes of a linear last layer.

    Returns:
        One task for each output, in the flattened order of the model's outputs.

    Raises:
        UnsupportedModelError: If an output can't be what the user says that it is.
        UserError: If `given` is wrong, or names an output that the model doesn't have.

    Example:
        >>> model = graph.trace(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="scores")]))
        >>> [task.kind for labels in (None, np.array([2, 0])) for task in choose_tasks(model, labels=labels)]
        ['regression', 'classification']
        >>> choose_tasks(model, ["classification"])[0].scores
        'classes'
    """
    outputs = model.graph.outputs
    named = parse_tasks(given)
    unknown = sorted(set(named) - {"", *outputs})
    if unknown:
        raise UserError(
            f"The model has no output {unknown[0]!r}. Received: --task {unknown[0]}={named[unknown[0]]} for the model "
            f"{model.name!r} with the outputs {', '.join(map(repr, outputs))}. {TASK_FORMS}"
        )
    read = {flag: graph.read_tasks(model, class_labels=flag) for flag in (False, True)}
    with_classes = _class_labels(model, labels)
    return tuple(
        _named_task(model, i, named[name]) if (name := output if output in named else "") in named else read[flag][i]
        for i, (output, flag) in enumerate(zip(outputs, with_classes, strict=True))
    )


def _named_task(model: Trace, i: int, kind: TaskKind) -> OutputTask:
    task = graph.as_task(model, i, kind)
    if task is None:
        output = model.graph.outputs[i]
        raise UnsupportedModelError(
            f"The output {output!r} can't be a {kind}: that has scores of classes along its last axis, and "
            f"{'no other axis but the batch' if kind == 'classification' else 'positions before it'}. Received: "
            f"--task {kind} for the shape {model.shape(output)}. Leave the option out, or give another kind of task."
        )
    return task


def _class_labels(model: Trace, labels: Any) -> tuple[bool, ...]:
    """Whether the labels of each output are numbers of classes, one for each row of scores."""
    outputs = model.graph.outputs
    arrays = [] if labels is None else [np.asarray(array) for array in keras.tree.flatten(labels)]
    if len(arrays) != len(outputs):
        return (False,) * len(outputs)
    return tuple(
        array.dtype.kind in "iu"
        and not np.all(array == UNLABELLED)
        and len(model.shape(output)) == array.ndim + (array.shape[-1] != 1 or array.ndim == 1)
        for output, array in zip(outputs, arrays, strict=True)
    )


def uses_labels(tasks: Sequence[OutputTask], labels: Any) -> bool:
    """Whether labels are of the kind that the tasks are judged by: classes for scores, numbers for a regression.

    Args:
        tasks: what each output says.
        labels: labels of a few inputs: an array, or for several outputs one array each.

    Example:
        >>> reconstruction = OutputTask("decoded", "regression")
        >>> uses_labels([reconstruction], np.array([3, 1])), uses_labels([reconstruction], np.ones((2, 8)))
        (False, True)
    """
    arrays = [np.asarray(array) for array in keras.tree.flatten(labels)]
    return len(arrays) == len(tasks) and all(
        array.dtype.kind in "iu" if task.scores else array.dtype.kind == "f"
        for task, array in zip(tasks, arrays, strict=True)
    )

"""The tasks of a run: what each output of its model says, as the user names it, or else as model and labels show it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from keras_qat import graph
from keras_qat.errors import UnsupportedModelError, UserError
from keras_qat.graph import Trace
from keras_qat.run.settings import TASK_FORMS, parse_tasks
from keras_qat.types import OutputTask, TaskKind


def output_names(model: Any, traced: Trace) -> tuple[str, ...]:
    """The names of a model's outputs: Keras's, which are those of layers, if they tell the outputs apart.

    Args:
        model: the Keras model.
        traced: the same model, traced.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax", name="scores")])
        >>> output_names(model, graph.trace(model))
        ('scores',)
    """
    tensors = traced.graph.outputs
    names = tuple(getattr(model, "_functional", model).output_names or ())
    return names if len(set(names)) == len(tensors) else tensors


def choose_tasks(
    model: Trace, given: Sequence[str] = (), label_kinds: Sequence[TaskKind] = (), names: Sequence[str] | None = None
) -> tuple[OutputTask, ...]:
    """What each output of a model says.

    Args:
        model: the traced model.
        given: as for `parse_tasks`. What it says nothing about is read from the model and the labels.
        label_kinds: what the labels for each output say; empty without labels. Classes as labels make a linear last
            layer one of logits.
        names: names of the outputs, as from `output_names`; those in the graph by default.

    Returns:
        One task for each output, in the flattened order of the model's outputs.

    Raises:
        UnsupportedModelError: If an output can't be what the user says that it is.
        UserError: If `given` is wrong, or names an output that the model doesn't have.

    Example:
        >>> import keras
        >>> model = graph.trace(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="scores")]))
        >>> [choose_tasks(model, label_kinds=kinds)[0].kind for kinds in ([], ["classification"])]
        ['regression', 'classification']
        >>> choose_tasks(model, ["classification"])[0].scores
        'classes'
    """
    outputs = tuple(names or model.graph.outputs)
    named = parse_tasks(given)
    unknown = sorted(set(named) - {"", *outputs})
    if unknown:
        raise UserError(
            f"The model has no output {unknown[0]!r}. Received: --task {unknown[0]}={named[unknown[0]]} for the model "
            f"{model.name!r} with the outputs {', '.join(map(repr, outputs))}. {TASK_FORMS}"
        )
    of_labels = label_kinds if len(label_kinds) == len(outputs) else [None] * len(outputs)
    read, as_classes = graph.read_tasks(model), graph.read_tasks(model, class_labels=True)

    def task(i: int, output: str) -> OutputTask:
        kind = named.get(output, named.get(""))
        if kind is not None:
            return _named_task(model, i, output, kind)
        return replace(as_classes[i] if of_labels[i] == as_classes[i].kind else read[i], output=output)

    return tuple(task(i, output) for i, output in enumerate(outputs))


def _named_task(model: Trace, i: int, output: str, kind: TaskKind) -> OutputTask:
    task = graph.as_task(model, i, kind)
    if task is None:
        raise UnsupportedModelError(
            f"The output {output!r} can't be a {kind}: that has scores of classes along its last axis, and "
            f"{'no other axis but the batch' if kind == 'classification' else 'positions before it'}. Received: "
            f"--task {kind} for the shape {model.shape(model.graph.outputs[i])}. Leave the option out, or give another "
            "kind of task."
        )
    return replace(task, output=output)

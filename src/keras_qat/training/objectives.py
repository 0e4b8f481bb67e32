"""What each output of a model is trained for: its task, how its numbers are read, its labels, and the user's own loss.

    softmax, log_softmax, sigmoid       probabilities that are matched by their divergence
    a linear last layer                 logits, if the task or the labels say that it gives classes; numbers otherwise
    anything else                       probabilities, if the task gives classes and the rows add up to 1

All that can't be trained is refused here, by the name of the output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_qat.errors import UserError
from keras_qat.graph import Trace, as_task, classes_of, output_activation, read_tasks, trace
from keras_qat.training import losses
from keras_qat.training.losses import Reading
from keras_qat.training.model_outputs import Outputs, Wishes, own_losses, own_metrics, read_model_outputs
from keras_qat.training.recipe import Recipe
from keras_qat.types import OutputTask, ScoreMeaning

_NEGATIVE, _SUM_ERROR = 1e-3, 0.25  # tolerances, wide enough for outputs that are themselves quantized
_MATRIX = 2  # axes of the outputs of whole images, (batch, classes)

_READINGS: Mapping[tuple[ScoreMeaning | None, str | None], Reading] = {
    ("classes", "softmax"): "probabilities",
    ("classes", "log_softmax"): "logits",
    ("classes", "sigmoid"): "independent",
    ("classes", None): "logits",
    ("probability", "sigmoid"): "probability",
    ("logit", None): "logit",
    (None, "softmax"): "probabilities",
    (None, "log_softmax"): "logits",
    (None, "sigmoid"): "independent",
    (None, None): "numbers",
}
"""(meaning of the scores, activation at the end) → what the numbers are."""

_BY_NUMBERS: Mapping[tuple[ScoreMeaning | None, bool], Reading] = {
    ("classes", True): "probabilities",
    ("classes", False): "logits",
    ("probability", True): "probability",
    ("probability", False): "probability",
    ("logit", True): "logit",
    ("logit", False): "logit",
}
"""(meaning of the scores, whether the rows add up to 1) → the same, for any other end."""


@dataclass(frozen=True)
class Objective:
    """What one output is trained for.

    Args:
        name: name of the output.
        shape: its shape, `None` for axes of unknown size.
        task: what it says.
        reading: what its numbers are.
        teacher_reading: what the teacher's numbers are.
        labelled: whether the data has labels for it.
        loss: the user's own loss for the labels; `None` for that of the task.
        metrics: the user's own metrics for the labels.
    """

    name: str
    shape: tuple[int | None, ...]
    task: OutputTask
    reading: Reading
    teacher_reading: Reading
    labelled: bool = False
    loss: Any = None
    metrics: tuple[Any, ...] = ()

    @property
    def classes(self) -> int | None:
        """The number of classes; `None` for a regression."""
        return None if self.task.scores is None else classes_of(self.shape[-1] or 1, self.task.scores)

    def label_loss(self, smoothing: float) -> Any:
        """Return the loss of the labels, as `keras.Model.compile` takes it."""
        if self.loss is not None:
            return self.loss
        if self.task.scores is None:
            return losses.squared_error
        return lambda labels, outputs: losses.labels_loss(labels, outputs, smoothing, self.reading)

    def distance(self, teacher: Any, student: Any, temperature: float) -> Any:
        """Return the distance of the student's output from the teacher's, a scalar."""
        if self.reading == "numbers":
            return losses.feature_loss(teacher, student)
        return losses.distillation_loss(teacher, student, temperature, self.reading, self.teacher_reading)


def require_trainable(
    model: keras.Model, recipe: Recipe, *, tasks: tuple[OutputTask, ...] | None = None, class_labels: bool = False
) -> None:
    """Refuse a model that can't be trained by a recipe, before any data is read.

    Args:
        model: the model to train, or the float model that it will be made of.
        recipe: the settings.
        tasks: a task for each output, in flattened order; read from the model if `None`.
        class_labels: whether the labels are numbers of classes, one an image: a linear last layer gives logits then.

    Raises:
        UserError: If an output has no gradient, there are more or fewer tasks than outputs, or a setting of the recipe
            needs classes and no output gives them.
        UnsupportedModelError: If the model has no graph.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="box")])
        >>> require_trainable(model, Recipe())
        >>> require_trainable(model, Recipe(monitor="accuracy"))
        Traceback (most recent call last):
        keras_qat.errors.UserError: `monitor='accuracy'` needs an output of classes. Received: 'box' (regression)...
    """
    outputs = read_model_outputs(model, None, Wishes(tasks))
    _require_classes(recipe, tasks or read_tasks(outputs.model, class_labels=class_labels))


def _require_classes(recipe: Recipe, tasks: Sequence[OutputTask]) -> None:
    """Refuse settings that have no meaning without classes."""
    if any(task.scores is not None for task in tasks):
        return
    received = ", ".join(f"{task.output!r} ({task.kind})" for task in tasks)
    if recipe.monitor == "accuracy":
        raise UserError(
            f"`monitor='accuracy'` needs an output of classes. Received: {received}. Choose the epoch by the loss, "
            "`monitor='loss'`; if an output does give classes, say so by `tasks`."
        )
    if recipe.label_smoothing:
        raise UserError(
            f"`label_smoothing` needs an output of classes. Received: {received}. Set it to 0; if an output does give "
            "classes, say so by `tasks`."
        )


def settle(
    outputs: Outputs, wishes: Wishes, recipe: Recipe, numbers: Sequence[Sequence[np.ndarray]], labels: Sequence[Any]
) -> tuple[Objective, ...]:
    """Decide what each output is trained for.

    Args:
        outputs: the outputs, as read.
        wishes: what the user asks of them.
        recipe: the settings.
        numbers: the outputs of the model, and of its teacher if there is one, for a few images.
        labels: the labels of the first batch by output; `None` where there are none.

    Raises:
        UserError: If an output isn't finite, a loss or metric belongs to no output or to one without labels, the
            recipe leaves a loss no effect, or a setting needs classes and no output gives them.
    """
    positions = range(len(outputs.names))
    own, metrics = own_losses(outputs, wishes.loss), own_metrics(outputs, wishes.metrics)
    objectives = []
    for i in positions:
        task = _task(outputs.model, i, wishes.tasks, numbers[0][i], labels[i])
        readings = [
            _reading(traced, i, task, rows[i])
            for traced, rows in zip((outputs.model, outputs.teacher), numbers, strict=False)
        ]
        student, teacher = _agreed(readings)
        shape = outputs.model.shape(outputs.names[i])
        objectives.append(
            Objective(outputs.names[i], shape, task, student, teacher, labels[i] is not None, own[i], metrics[i])
        )
    _require_classes(recipe, [objective.task for objective in objectives])
    _require_labels_for(objectives, wishes, recipe)
    return tuple(objectives)


def read_objectives(model: keras.Model, teacher: keras.Model | None = None) -> tuple[Objective, ...]:
    """Return what each output is trained for as far as the models show it, without data.

    Args:
        model: the model to train, with labels for all outputs.
        teacher: the model to distill from.
    """
    traced = trace(model)
    taught = traced if teacher is None else trace(teacher)
    objectives = []
    for name, other, task in zip(traced.graph.outputs, taught.graph.outputs, read_tasks(traced), strict=True):
        readings: list[Reading] = [
            _READINGS.get((task.scores, output_activation(each, output)), "numbers")
            for each, output in ((traced, name), (taught, other))
        ]
        student, target = _agreed(readings)
        objectives.append(Objective(name, traced.shape(name), task, student, target, labelled=True))
    return tuple(objectives)


def _agreed(readings: Sequence[Reading]) -> tuple[Reading, Reading]:
    """How the student's and the teacher's numbers are compared: as numbers, where only one of them gives classes."""
    student, teacher = readings[0], readings[-1]
    apart = student != teacher and {student, teacher} & {"numbers", "independent"}
    return ("numbers", "numbers") if apart else (student, teacher)


def _task(traced: Trace, index: int, given: tuple[OutputTask, ...] | None, rows: np.ndarray, labels: Any) -> OutputTask:
    """The task of an output: the user's, or read from the model and the labels."""
    if given is not None:
        return given[index]
    task = read_tasks(traced, class_labels=_are_classes(labels, rows))[index]
    unknown = task.scores is None and output_activation(traced, task.output) not in {key[1] for key in _READINGS}
    # A mean of several softmaxes, for example, is known by its numbers alone.
    if unknown and rows.ndim == _MATRIX and rows.shape[1] > 1 and _add_up(rows):
        return as_task(traced, index, "classification") or task
    return task


def _are_classes(labels: Any, rows: np.ndarray) -> bool:
    """Whether labels are numbers of classes: integers, one for each image or position of the outputs."""
    if labels is None or labels.dtype.kind not in "iu":
        return False
    shape = labels.shape[:-1] if labels.ndim == rows.ndim and labels.shape[-1] == 1 else labels.shape
    return len(shape) == rows.ndim - 1 and shape[1:] == rows.shape[1:-1]


def _reading(traced: Trace, index: int, task: OutputTask, rows: np.ndarray) -> Reading:
    end = (task.scores, output_activation(traced, traced.graph.outputs[index]))
    return _READINGS.get(end) or _BY_NUMBERS.get((task.scores, _add_up(rows)), "numbers")


def _add_up(rows: np.ndarray) -> bool:
    """Whether the numbers along the last axis may be the probabilities of classes."""
    sums = rows.sum(axis=-1) if rows.ndim else rows
    return bool(rows.min(initial=0) >= -_NEGATIVE and np.abs(sums - 1).max(initial=0) <= _SUM_ERROR)


def _require_labels_for(objectives: Sequence[Objective], wishes: Wishes, recipe: Recipe) -> None:
    """Refuse losses and metrics that no labels reach."""
    if wishes.loss is not None and recipe.distillation is not None and recipe.distillation.weight == 1:
        raise UserError(
            "`loss` compares the labels, and a distillation of weight 1 doesn't look at them. Received: "
            f"loss={wishes.loss!r}. Leave it out, or give the distillation a weight below 1."
        )
    untaught = [objective.name for objective in objectives if not objective.labelled]
    if recipe.distillation is None and untaught:
        raise UserError(
            "Without a teacher each output needs labels: one that has none would get worse while the others train. "
            f"Received: no labels for {', '.join(map(repr, untaught))}. Give them, or a teacher "
            "and a recipe that distills."
        )
    per_output = isinstance(wishes.loss, Mapping | list | tuple)
    for objective in objectives:
        asked = objective.metrics or (per_output and objective.loss is not None)
        if asked and not objective.labelled:
            raise UserError(
                f"The output {objective.name!r} has a loss or metrics of its own, and no labels to compare. Received: "
                "no labels, or -1 for each. Give labels, or leave the loss and the metrics out."
            )
    if recipe.monitor == "accuracy" and not any(o.labelled and o.task.scores for o in objectives):
        raise UserError(
            "`monitor='accuracy'` needs labels of an output of classes. Received: labels of other outputs only. Give "
            "them, or choose the epoch by the loss, `monitor='loss'`."
        )


def objectives_text(objectives: Sequence[Objective]) -> str:
    """What a resumed run must train for as well, as text; empty for a classifier whose model alone decides it.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> objectives_text(read_objectives(model))
        'regression numbers'
    """
    first = objectives[0]
    if len(objectives) == 1 and first.loss is None and first.reading in ("probabilities", "probability"):
        return "" if first.task.kind == "classification" else first.task.kind
    return ", ".join(
        " ".join([o.task.kind, o.reading, *([] if o.labelled else ["unlabelled"]), *_name_of(o.loss)])
        for o in objectives
    )


def _name_of(loss: Any) -> list[str]:
    if loss is None or isinstance(loss, str):
        return [] if loss is None else [loss]
    return [str(getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__))]

"""The data of a training run: how it is counted, and what is found out from its first batches before the first step."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_qat.errors import DataError, UserError
from keras_qat.training.label_checks import labels_missing, require_label_free, require_labels
from keras_qat.training.model_outputs import Wishes, finite_outputs, read_model_outputs
from keras_qat.training.objectives import Objective, settle
from keras_qat.training.recipe import Recipe
from keras_qat.training.streams import Form, Stream, count_steps, first_batch, open_stream

TrainData = Any
"""The training data: whole arrays (x, y), batches in any form that can be read again, or a function from the epoch
(from 1) to such data, in the order of that epoch."""

_CHECKED_IMAGES = 8  # the outputs for a single image may look like probabilities by chance


@dataclass(frozen=True)
class EpochData:
    """The batches that a run trains on, and those that choose its best epoch.

    Args:
        train: (epoch from 1, number of its first step) → the batches of that epoch, as `fit` takes them.
        steps: steps of one epoch, at most as many as the data has batches.
        selection: gives the batches that choose the best epoch, as `evaluate` takes them.
        selection_steps: number of selection batches.
        batch_size: number of images in the first training batch; later batches may be smaller.
        form: what Keras reads, and what each output is trained for.
    """

    train: Callable[[int, int], Any]
    steps: int
    selection: Callable[[], Any]
    selection_steps: int
    batch_size: int
    form: Form

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What each output is trained for."""
        return self.form.objectives


def read_data(
    train: TrainData,
    selection: Any,
    recipe: Recipe,
    model: keras.Model,
    teacher: keras.Model | None = None,
    wishes: Wishes | None = None,
) -> EpochData:
    """Count the batches, run the models on the first one, and decide what each output is trained for.

    Args:
        train: the training data, or a function from the epoch to them.
        selection: the data that choose the best epoch, or a function that gives them.
        recipe: sets the largest number of steps per epoch, and whether labels are required.
        model: the model to train.
        teacher: the model to distill from, with the same inputs and outputs.
        wishes: what the user asks of the outputs.

    Raises:
        UserError: If the data is endless or can be read only once, if labels are required but missing or don't match
            the outputs, if an output can't be trained, or if a model gives numbers that aren't finite.
        DataError: If the training or the selection data has no batch, can't be read, or doesn't fit the model.
    """
    wishes = wishes or Wishes()
    outputs = read_model_outputs(model, teacher, wishes)
    size = recipe.batch_size

    def open_epoch(epoch: int) -> Stream:
        order = (recipe.seed, epoch)
        return open_stream(_called(train, epoch), model, outputs, size, "training data", order)

    def open_selection() -> Stream:
        return open_stream(_called(selection), model, outputs, size, "selection data")

    first_epoch, first_selection = open_epoch(1), open_selection()
    _require_again(train, first_epoch, "`lambda epoch: batches(epoch)`")
    _require_again(selection, first_selection, "`lambda: batches()`")
    steps = count_steps(first_epoch, recipe.steps_per_epoch)
    selection_steps = count_steps(first_selection, None)
    # What a generator has given while its batches were counted is gone.
    first_epoch = open_epoch(1) if first_epoch.source.once else first_epoch
    first_selection = open_selection() if first_selection.source.once else first_selection
    chosen, x, chosen_labels = first_batch(first_selection, model, outputs)
    few = _few(x, model)
    models = [(model, "model")] if teacher is None else [(model, "model"), (teacher, "teacher")]
    numbers = [finite_outputs(each, few, what) for each, what in models]
    trained, x, labels = first_batch(first_epoch, model, outputs)
    missing = [any(map(labels_missing, pair)) for pair in zip(chosen_labels, labels, strict=True)]
    if all(missing):
        require_label_free(recipe)
    known = [None if gone else array for gone, array in zip(missing, labels, strict=True)]
    objectives = settle(outputs, wishes, recipe, numbers, known)
    for each, stream in ((chosen_labels, first_selection), (labels, first_epoch)):
        for objective, array in zip(objectives, each, strict=True):
            if objective.labelled:
                require_labels(objective, array, stream.what, dataset=stream.dataset is not None)
    form = Form(model, outputs, objectives, tuple(map(_label_type, objectives, known)))
    examples = form.example(trained, "training data"), form.example(chosen, "selection data")

    def train_from(epoch: int, step: int) -> Any:
        stream = open_epoch(epoch)
        # Data without an end that is given as it is goes on from epoch to epoch.
        passed = (epoch - 1) * steps if stream.source.endless and not callable(train) else 0
        return form.open(stream, passed + step, steps - step, examples[0])

    return EpochData(
        train_from,
        steps,
        lambda: form.open(open_selection(), 0, selection_steps, examples[1]),
        selection_steps,
        len(x[0]),
        form,
    )


def _called(data: Any, *epoch: int) -> Any:
    """The data, or what a function of the epoch, or of nothing, gives."""
    if not callable(data):
        return data
    for arguments in dict.fromkeys((epoch, ())):
        try:
            inspect.signature(data).bind(*arguments)
        except TypeError:
            continue
        except ValueError:  # a function of another language, which doesn't show its parameters
            pass
        return data(*arguments)
    raise UserError(
        "A function that gives training data takes the epoch, or nothing, and one that gives selection data nothing. "
        f"Received: {data!r} with {inspect.signature(data)}. Use `lambda epoch: …`, or `lambda: …`."
    )


def _require_again(data: Any, stream: Stream, way: str) -> None:
    """Refuse data that can be read only once, since each epoch and each resumed run reads it again."""
    if stream.source.once and not callable(data):
        raise DataError(
            f"The {stream.what} can be read only once, and training reads it in each epoch. Received: "
            f"{type(data).__name__}. Give a function that makes it anew, {way}, or a list of the batches."
        )


def _few(x: list[np.ndarray], model: keras.Model) -> Any:
    """A few images as the model takes them; all of them for a fixed batch size."""
    count = model.inputs[0].shape[0] or _CHECKED_IMAGES
    arrays = [np.asarray(array[:count], spec.dtype) for array, spec in zip(x, model.inputs, strict=True)]
    structure = getattr(model, "_inputs_struct", None)  # Keras has no public access; a Sequential model has none
    return arrays[0] if structure is None else keras.tree.pack_sequence_as(structure, arrays)


def _label_type(objective: Objective, labels: np.ndarray | None) -> str:
    """The type in which labels reach the loss: with a loss of the user's own, that of the first batch."""
    if labels is None:
        return "int32"
    if objective.loss is None:
        return "float32" if objective.classes is None else "int32"
    return "float32" if labels.dtype.kind == "f" else str(labels.dtype)

"""Quantization-aware training of a fake-quantized model, and the training of the float baseline.

Both are plain Keras training of a copy, of which the best epoch is kept. Fine-tuning also counts the model as given as
epoch 0, so its result is never worse than the model it began with.
"""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.files import locked, require_writable
from keras_qat.graph import require_sound
from keras_qat.training import batches, checkpoint, cloning, devices, distiller
from keras_qat.training.callbacks import tensorboard_callbacks
from keras_qat.training.checkpoint import EpochRecord
from keras_qat.training.epochs import fit_epochs
from keras_qat.training.model_outputs import Wishes
from keras_qat.training.objectives import Objective, objectives_text
from keras_qat.training.recipe import Recipe
from keras_qat.training.session import Session, open_session
from keras_qat.types import OutputTask

# With Keras's 0.99 the moving statistics lag on small data: ResNet50 on digits stays at chance for 10 epochs.
_BASELINE_MOMENTUM = 0.9

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineTuned:
    """The result of fine-tuning.

    Args:
        model: the model of the best epoch, uncompiled, with the given model's `trainable` flags.
        best_epoch: number of the best epoch; 0 is the model as given.
        history: the records of all epochs, from 0.
    """

    model: keras.Model
    best_epoch: int
    history: tuple[EpochRecord, ...]


def fine_tune(
    model: keras.Model,
    train: batches.TrainData,
    selection: Any,
    recipe: Recipe,
    *,
    teacher: keras.Model | None = None,
    tasks: tuple[OutputTask, ...] | None = None,
    loss: Any = None,
    metrics: Any = None,
    folder: str | Path | None = None,
    resume: bool = True,
    data_id: str = "",
    keep_every_s: float = 600.0,
    progress: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> FineTuned:
    """Train a copy of `model`, and return its best epoch, where epoch 0 is the model as given.

    The best epoch has the lowest loss on `selection`, or by `recipe.monitor` the highest accuracy. The loss is the
    distance from the teacher's outputs, that from the labels, or a mixture (see `Distillation`). Both are means over
    the outputs:

    - Classes, of the images or of their positions (a softmax, a single sigmoid, or logits, see `tasks`): the
      Kullback-Leibler divergence from the teacher, the cross-entropy with the labels.
    - Several sigmoids that are independent of each other: the sum of their divergences, the mean squared error.
    - Any other numbers: ‖t - s‖² / ‖t‖² of the teacher's outputs t and the model's s, the mean squared error.

    Args:
        model: a model of any inputs and outputs. It isn't changed.
        train: the training data, in any form that `calibrate` takes and that can be read again:
            - whole arrays, as for `fit`: (x, y), or x alone. They are cut into batches of `recipe.batch_size`, in an
              order drawn from `recipe.seed` and the epoch;
            - batches, read in each epoch as they come: a list, a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
              DataLoader;
            - a function from the epoch (from 1) to any of these or to a generator, such as
              `lambda epoch: image_set.batches(64, shuffle_seed=seed + epoch)`. A resumed run sees the same order only
              if the order depends on the epoch alone.

            A batch is (x, y), x alone, or (x, y, sample_weight). x and y are arrays, or tuples or dictionaries of them
            by input and by output. y holds integers for classes, of shape (batch,) or (batch, …) for positions, where
            -1 or 255 marks a position without a class; and numbers of the output's shape otherwise. Without labels,
            or with -1 for each image, the recipe can only distill; all accuracies are then `None`.
        selection: data of the same kind, or a function without arguments that gives it, which choose the epoch; don't
            report accuracy on this data.
        recipe: the settings.
        teacher: the float model that `model` was made from; required if the recipe distills. It isn't changed.
        tasks: what each output says, in flattened order. By default it is read from the model: a linear last layer
            gives the logits of classes if the labels are integers, one for each image or position, and numbers
            otherwise.
        loss: a loss of your own for the labels: one of Keras, its name or a function of (labels, outputs); for several
            outputs one for all, a list, or a dictionary by output. The labels may then be anything that it takes.
        metrics: metrics of your own for the labels, a list; for several outputs a list or dictionary of such lists. The
            history has their values on the selection data.
        folder: folder for `last.npz`, `best.keras`, `history.json` and TensorBoard logs; `None` saves nothing.
        resume: continue a run in `folder` with the same recipe, models and number of steps; a finished run returns at
            once. On a CPU the weights equal those of an uninterrupted run. The data itself isn't compared, only
            `data_id`. A run that can't be resumed is moved to `earlier-1`, `earlier-2`, ….
        data_id: an identifier of the images; a run with another identifier isn't resumed.
        keep_every_s: seconds between two checkpoints within an epoch.
        progress: show a bar on a terminal, or print one line per epoch elsewhere.
        callbacks: additional Keras callbacks. They see one `fit` per epoch, so what they count from `on_train_begin`
            starts again with each. One that sets `stop_training` ends the run after that epoch; an epoch that it cuts
            short doesn't count.

    Returns:
        The best epoch's model, its number, and the records of all epochs.

    Raises:
        UserError: If an output can't be trained, the teacher's inputs or outputs differ, the labels don't match the
            outputs, the recipe needs labels, classes or a teacher that are missing, no weight is trainable, the loss
            isn't finite, or memory doesn't suffice.
        DataError: If the training or the selection data has no batch, can't be read, can be read only once, or doesn't
            fit the model.
        UnsupportedModelError: If the model or the teacher can't be cloned, or `keras.Model.quantize` has changed one.
        WeightsError: If a weight of the model or the teacher is NaN or infinite.
        StorageError: If `folder` can't be read or written, or its disk is too full. This is checked before the first
            step.
        KeyboardInterrupt: If the run is interrupted. The same call resumes it from the last checkpoint.

    Example:
        >>> import numpy as np
        >>> data = (np.eye(4, dtype="float32"), np.array([0, 0, 1, 1]))
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
        >>> recipe = Recipe(epochs=1, schedule="constant", learning_rate=0.5, distillation=None)
        >>> tuned = fine_tune(model, data, data, recipe, progress=False)
        >>> [record.epoch for record in tuned.history]
        [0, 1]
    """
    path = None if folder is None else Path(folder)
    if path is not None:
        require_writable(path)
    require_sound(model)
    teacher = _teacher_for(model, recipe, teacher)
    data = batches.read_data(train, selection, recipe, model, teacher, Wishes(tasks, loss, metrics))
    _require_steps(recipe, data.steps)
    devices.require_memory(
        model, data.batch_size, recipe.accumulate, devices.available_memory(), recipe.training_precision
    )
    keras.utils.set_random_seed(recipe.seed)

    teacher_id = "" if teacher is None else cloning.fingerprint(teacher)
    identity = checkpoint.RunIdentity(
        recipe,
        data.steps,
        cloning.fingerprint(model),
        teacher_id,
        data.form.labelled,
        data_id,
        objectives_text(data.objectives),
    )
    with nullcontext() if path is None else locked(path, "a training"):
        session, position = _open_run(model, teacher, identity, data.objectives, path if resume else None)
        logs: list[keras.callbacks.Callback] = []
        if path is not None and (position is None or position.history.last_epoch < recipe.epochs):
            if position is None:
                checkpoint.set_aside(path, f"The run in {path} isn't resumed")
            checkpoint.require_room(path, session)
            logs = tensorboard_callbacks(path / checkpoint.TENSORBOARD)

        def keep(position: checkpoint.Position) -> None:
            if path is not None:
                checkpoint.save_checkpoint(path, identity, session, position)

        try:
            history = fit_epochs(
                session,
                data,
                recipe,
                position,
                progress=progress,
                callbacks=[*logs, *callbacks],
                keep=keep,
                keep_every_s=keep_every_s,
            )
        except KeyboardInterrupt:
            if path is None:
                _logger.warning("Interrupted. Nothing was saved; give a `folder` to be able to resume.")
            else:
                _logger.warning("Interrupted. The last checkpoint is in %s; start the same run again to resume.", path)
            raise
    return FineTuned(session.best, history.best_epoch, history.records)


def _teacher_for(model: keras.Model, recipe: Recipe, teacher: keras.Model | None) -> keras.Model | None:
    """Return the teacher if the recipe distills."""
    if recipe.distillation is None:
        return None
    if teacher is None:
        raise UserError(
            "The recipe distills, and there is no teacher. Received: teacher=None. Give the float model as `teacher`, "
            "or train on the labels alone with `Recipe(distillation=None)`."
        )
    require_sound(teacher)
    distiller.require_teacher(model, teacher)
    return teacher


def _require_steps(recipe: Recipe, steps: int) -> None:
    total = steps * recipe.epochs
    if recipe.accumulate > total:
        raise UserError(
            f"`accumulate` is more than the {total} steps of the whole run, so no weight would ever move. Received: "
            f"accumulate={recipe.accumulate}. Use {total} or less, or smaller batches."
        )


def _open_run(
    model: keras.Model,
    teacher: keras.Model | None,
    identity: checkpoint.RunIdentity,
    objectives: Sequence[Objective],
    folder: Path | None,
) -> tuple[Session, checkpoint.Position | None]:
    """Return a session at the position of the checkpoint in `folder`, or a new session and `None`."""
    open_new = partial(
        open_session, model, identity.recipe, identity.steps_per_epoch, teacher=teacher, objectives=objectives
    )
    session = open_new()
    if folder is None or not (folder / checkpoint.LAST).exists():
        return session, None
    position = checkpoint.load_checkpoint(folder, identity, session)
    if position is None:
        return open_new(), None
    epoch, epochs = position.history.last_epoch, identity.recipe.epochs
    _logger.info("Resuming after epoch %d of %d and %d steps, from %s.", epoch, epochs, position.step, folder)
    return session, position


def train_baseline(
    model: keras.Model,
    train: batches.TrainData,
    selection: Any,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    steps_per_epoch: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    tasks: tuple[OutputTask, ...] | None = None,
    loss: Any = None,
) -> keras.Model:
    """Train a copy of `model` from scratch with Adam, cosine decay and batch norm momentum 0.9.

    Args:
        model: a model of any inputs and outputs, usually with new weights. It isn't changed.
        train: the training data with labels, as for `fine_tune`.
        selection: data of the same kind. The best epoch has the highest accuracy on them; among equals, the lowest
            loss. Without an output of classes, it has the lowest loss.
        epochs: number of epochs to train.
        learning_rate: learning rate of the first step.
        steps_per_epoch: the largest number of steps in one epoch; `None` uses all the data.
        batch_size: the number of images in a batch, for whole arrays.
        seed: seed of all randomness, from 0 to 2³¹ - 1.
        progress: show a bar on a terminal, or print one line per epoch elsewhere.
        tasks: as for `fine_tune`.
        loss: as for `fine_tune`.

    Returns:
        The best epoch's model, uncompiled.

    Raises:
        UserError: If an output can't be trained or no weight is trainable, the labels don't match the outputs, the loss
            isn't finite, or memory runs out.
        DataError: If the training or the selection data has no batch, or can't be read.
        UnsupportedModelError: If the model can't be cloned.

    Example:
        >>> import numpy as np
        >>> data = (np.eye(4, dtype="float32"), np.array([0, 0, 1, 1]))
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
        >>> trained = train_baseline(model, data, data, epochs=1, progress=False)
        >>> trained.output_shape
        (None, 2)
    """
    recipe = Recipe(
        optimizer="adam",
        schedule="cosine",
        learning_rate=learning_rate,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        seed=seed,
        batch_norm="train",
        distillation=None,
    )
    data = batches.read_data(train, selection, recipe, model, wishes=Wishes(tasks, loss))
    if any(objective.labelled and objective.task.scores for objective in data.objectives):
        recipe = replace(recipe, monitor="accuracy")
    keras.utils.set_random_seed(seed)
    session = open_session(
        model, recipe, data.steps, batch_norm_momentum=_BASELINE_MOMENTUM, objectives=data.objectives
    )
    fit_epochs(session, data, recipe, progress=progress)
    return session.best

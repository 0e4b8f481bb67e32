"""Float training from scratch, for the data that the package carries with it."""

from typing import Any

import keras

from keras_qat.training.batches import TrainData, read_data
from keras_qat.training.checkpoint import Position
from keras_qat.training.epochs import fit_epochs
from keras_qat.training.history import History
from keras_qat.training.recipe import Recipe
from keras_qat.training.schedule import make_schedule
from keras_qat.training.session import open_session

# With Keras's 0.99 the moving statistics lag on small data: ResNet50 on digits stays at chance for 10 epochs.
_BATCH_NORM_MOMENTUM = 0.9


def train_baseline(
    model: keras.Model,
    train: TrainData,
    selection: Any,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    steps_per_epoch: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> keras.Model:
    """Train a copy of `model` with Adam, cosine decay and BatchNorm momentum 0.9; return its best epoch.

    Args:
        model: a classifier with softmax output, usually with fresh weights. It isn't touched.
        train: epoch (from 1) → a `tf.data.Dataset` of (images, integer labels) batches, shuffled for it.
        selection: batches of the same kind; the best epoch has the highest top-1 accuracy, of equals the
            lowest loss.
        epochs: how many epochs to train.
        learning_rate: of the first step.
        steps_per_epoch: the most steps of one epoch; `None` takes all the data.
        seed: of everything random.
        progress: show a bar on a terminal, a line an epoch elsewhere.

    Returns:
        The best epoch's model, uncompiled.

    Raises:
        UserError: the model has no softmax or nothing to train, the loss isn't finite, or memory ran out.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> data = tf.data.Dataset.from_tensor_slices((np.eye(4, dtype="float32"), [0, 0, 1, 1])).batch(2)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
        >>> trained = train_baseline(model, lambda epoch: data, data, epochs=1, progress=False)
        >>> trained.output_shape
        (None, 2)
    """
    recipe = Recipe(
        optimizer="adam",
        schedule="cosine",
        learning_rate=learning_rate,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        seed=seed,
        batch_norm="train",
        distillation=None,
        monitor="accuracy",
    )
    data = read_data(train, selection, recipe, model)
    keras.utils.set_random_seed(seed)
    schedule = make_schedule(recipe.schedule, learning_rate, data.steps, epochs)
    session = open_session(model, recipe, schedule, batch_norm_momentum=_BATCH_NORM_MOMENTUM)
    fit_epochs(session, data, recipe, Position(History(monitor="accuracy")), progress=progress)
    return session.best

"""The loop over epochs, shared by fine-tuning and the training of the float baseline."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import keras

from keras_qat.training import callbacks, checkpoint, cloning
from keras_qat.training.batches import EpochData
from keras_qat.training.callbacks import FiniteLoss, StateKeeper, TrainingProgress, memory_explained
from keras_qat.training.recipe import Recipe, parse_batch_norm
from keras_qat.training.session import Session

_logger = logging.getLogger(__name__)


def fit_epochs(
    session: Session,
    data: EpochData,
    recipe: Recipe,
    position: checkpoint.Position | None = None,
    *,
    progress: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    keep: Callable[[checkpoint.Position], None] = lambda _: None,
    keep_every_s: float = 600.0,
) -> checkpoint.History:
    """Train epoch by epoch; after each epoch that is the best so far, `session.best` gets its weights.

    Each epoch is one `fit`; the compiled step and the optimizer carry over to the next. All randomness of epoch e is
    seeded with seed + e, so it doesn't depend on how many epochs ran in this process.

    Args:
        session: the models, with the weights at `position`.
        data: the batches to train on, and those that choose the best epoch.
        recipe: the settings.
        position: where to resume; `None` starts a new run with the evaluation of the model as given.
        progress: show a bar on a terminal, or print one line per epoch elsewhere.
        callbacks: additional Keras callbacks; setting `stop_training` ends the run.
        keep: called with the position after each finished epoch, 0 included, and at intervals within an epoch.
        keep_every_s: seconds between two calls within an epoch.

    Returns:
        The history of the whole run, the resumed part included.

    Raises:
        UserError: If the loss isn't finite, or if memory runs out.
    """
    with ExitStack() as stack:
        stack.enter_context(memory_explained(data.batch_size, recipe.accumulate))
        stack.enter_context(data.form.errors_as_raised())
        if position is None:
            position = checkpoint.Position(
                checkpoint.History(monitor=recipe.monitor).with_record(_evaluate_given(session, data))
            )
            keep(position)
        own_callbacks = _freezing_callbacks(recipe)
        done = position.history.last_epoch
        if progress and done < recipe.epochs:
            bar = TrainingProgress(recipe.epochs, data.steps, session.rate_at, done=done, first_step=position.step)
            own_callbacks.append(stack.enter_context(bar))
        for epoch in range(done + 1, recipe.epochs + 1):
            keeper = _keeper(position, data.steps, keep, keep_every_s)
            record = _fit_epoch(session, data, recipe, position, [*own_callbacks, keeper, *callbacks])
            stopped = session.trainer.stop_training
            if stopped and keeper.step < data.steps:
                _logger.warning(
                    "Stopped by a callback after step %d of %d of epoch %d, which doesn't count.",
                    keeper.step,
                    data.steps,
                    epoch,
                )
                break
            position = checkpoint.Position(position.history.with_record(record))
            if position.history.best_epoch == epoch:
                session.keep_best()
            keep(position)
            if stopped:
                _logger.info("Stopped by a callback after epoch %d of %d.", epoch, recipe.epochs)
                break
    return position.history


def _evaluate_given(session: Session, data: EpochData) -> checkpoint.EpochRecord:
    """Evaluate the model as given, and return the record of epoch 0."""
    started = time.perf_counter()
    results = session.trainer.evaluate(data.selection(), steps=data.selection_steps, verbose=0, return_dict=True)
    logs = {f"val_{name}": float(value) for name, value in results.items()}
    record = _record(0, None, logs, data, started)
    known = "".join(f", {text}" for text in callbacks.measured(logs, "val_"))
    _logger.info("As given: selection loss %.4f%s.", record.selection_loss, known)
    return record


def _freezing_callbacks(recipe: Recipe) -> list[keras.callbacks.Callback]:
    batch_norm, ranges = parse_batch_norm(recipe.batch_norm), recipe.freeze_ranges_after
    return [
        *([callbacks.FreezeBatchNorm(batch_norm)] if batch_norm else []),
        *([callbacks.FreezeRanges(ranges)] if ranges is not None else []),
    ]


def _keeper(
    position: checkpoint.Position, steps: int, keep: Callable[[checkpoint.Position], None], every_s: float
) -> StateKeeper:
    """Return the callback that saves positions within the epoch after `position`."""
    return StateKeeper(
        lambda step, metrics: keep(replace(position, step=step, metrics=metrics)),
        every_s,
        steps,
        first_step=position.step,
        metrics=position.metrics,
    )


def _fit_epoch(
    session: Session,
    data: EpochData,
    recipe: Recipe,
    position: checkpoint.Position,
    callbacks: Sequence[keras.callbacks.Callback],
) -> checkpoint.EpochRecord:
    """Train the epoch after `position`, or the rest of it."""
    epoch, step = position.history.last_epoch + 1, position.step
    if step == 0:
        _seed_epoch(session.working, recipe.seed + epoch)
    else:
        # Metrics create their variables at the first batch, and the means of the interrupted epoch are restored into
        # them. This comes before the seeding, because reading the batch may draw random numbers.
        session.trainer.evaluate(data.selection(), steps=1, verbose=0)
        keras.utils.set_random_seed(recipe.seed + epoch)  # the seeds of layers come from the checkpoint
    batches = data.train(epoch, step)
    started = time.perf_counter()
    fitted = session.trainer.fit(
        batches,
        # The data ends by itself, but without this number Keras warns when data of unknown length ends.
        steps_per_epoch=data.steps - step,
        validation_data=data.selection(),
        validation_steps=data.selection_steps,
        initial_epoch=epoch - 1,
        epochs=epoch,
        shuffle=False,  # the data shuffles itself
        verbose=0,
        callbacks=[FiniteLoss(step), *callbacks],
    )
    logs = {name: float(values[-1]) for name, values in fitted.history.items()}
    return _record(epoch, session.rate_at(epoch * data.steps - 1), logs, data, started)


def _seed_epoch(model: keras.Model, seed: int) -> None:
    """Seed Python, NumPy and the backend, and each random layer of `model` (dropout, augmentation).

    A layer's own seed generator advances with each step; seeding it makes an epoch independent of those before it.
    """
    keras.utils.set_random_seed(seed)
    for index, layer in enumerate(cloning.all_layers(model)):
        for value in vars(layer).values():
            if isinstance(value, keras.random.SeedGenerator):
                value.state.assign([seed, index])


def _record(
    epoch: int, rate: float | None, logs: Mapping[str, float], data: EpochData, started: float
) -> checkpoint.EpochRecord:
    known = {"loss", *callbacks.MEASURES, *(f"{objective.name}_loss" for objective in data.objectives)}
    measured = {name.removeprefix("val_"): value for name, value in logs.items() if name.startswith("val_")}
    return checkpoint.EpochRecord(
        epoch=epoch,
        learning_rate=rate,
        train_loss=logs.get("loss"),
        train_accuracy=logs.get("accuracy"),
        selection_loss=logs["val_loss"],
        selection_accuracy=logs.get("val_accuracy"),
        selection_agreement=logs.get("val_agreement"),
        selection_sqnr=logs.get("val_sqnr"),
        selection_metrics={name: value for name, value in measured.items() if name not in known},
        seconds=time.perf_counter() - started,
    )

"""The loop over epochs that fine-tuning and the baseline share."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import keras

from keras_qat.training.batches import EpochData
from keras_qat.training.callbacks import FiniteLoss, StateKeeper, TrainingProgress, memory_explained
from keras_qat.training.checkpoint import Position
from keras_qat.training.cloning import all_layers
from keras_qat.training.freezing import FreezeBatchNorm, FreezeRanges
from keras_qat.training.history import EpochRecord, History
from keras_qat.training.recipe import Recipe, parse_batch_norm
from keras_qat.training.session import Session

_logger = logging.getLogger(__name__)


def fit_epochs(
    session: Session,
    data: EpochData,
    recipe: Recipe,
    position: Position,
    *,
    progress: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    keep: Callable[[Position], None] = lambda _: None,
    keep_every_s: float = 600.0,
) -> History:
    """Train epoch by epoch; `session.best` gets the weights of each best epoch.

    Each epoch is one plain `fit`; the compiled step and the optimizer go on from epoch to epoch. All that is random in
    epoch e starts from seed + e: it doesn't depend on how many epochs ran in this process.

    Args:
        session: the models; those at `position`.
        data: what to train on.
        recipe: the settings.
        position: where to go on; without history begin with the evaluation of the model as given.
        progress: show a bar, or a line an epoch.
        callbacks: of Keras, besides ours; `stop_training` ends the run.
        keep: called with the position after each finished epoch, 0 included, and now and then within one.
        keep_every_s: seconds between two calls within an epoch.

    Returns:
        The whole history.

    Raises:
        UserError: the loss isn't finite, or memory ran out.
    """
    with ExitStack() as stack:
        stack.enter_context(memory_explained(data.batch_size, recipe.accumulate))
        if not position.history.records:
            position = Position(position.history.with_record(_evaluate_given(session, data)))
            _log_given(position.history.records[0])
            keep(position)
        ours = _freezing(recipe)
        done = position.history.last_epoch
        if progress and done < recipe.epochs:
            bar = TrainingProgress(recipe.epochs, data.steps, session.rate_at, done=done, first_step=position.step)
            ours.append(stack.enter_context(bar))
        for epoch in range(done + 1, recipe.epochs + 1):
            keeper = _keeper(position, data.steps, keep, keep_every_s)
            record = _fit_one(session, data, recipe, position, [*ours, keeper, *callbacks])
            stopped = session.trainer.stop_training
            if stopped and keeper.step < data.steps:
                _logger.warning(
                    "Stopped by a callback after step %d of %d of epoch %d, which doesn't count.",
                    keeper.step,
                    data.steps,
                    epoch,
                )
                break
            position = Position(position.history.with_record(record))
            if position.history.best_epoch == epoch:
                session.keep_best()
            keep(position)
            if stopped:
                _logger.info("Stopped by a callback after epoch %d of %d.", epoch, recipe.epochs)
                break
    return position.history


def start_seeds(model: keras.Model, seed: int) -> None:
    """Seed Python, NumPy and the backend, and each random layer of `model` (dropout, augmentation).

    A layer's own seed generator advances with each step; so what an epoch draws doesn't depend on those before it.
    """
    keras.utils.set_random_seed(seed)
    for index, layer in enumerate(all_layers(model)):
        for value in vars(layer).values():
            if isinstance(value, keras.random.SeedGenerator):
                value.state.assign([seed, index])


def _fit_one(
    session: Session,
    data: EpochData,
    recipe: Recipe,
    position: Position,
    callbacks: Sequence[keras.callbacks.Callback],
) -> EpochRecord:
    """Train the epoch after `position`, or what is left of it."""
    epoch, step = position.history.last_epoch + 1, position.step
    if step == 0:
        start_seeds(session.working, recipe.seed + epoch)
    else:
        # A metric has its variables only after a first batch, and the means of the cut epoch must be put somewhere.
        # Before the seeds are set: to read the batch may draw random numbers.
        session.trainer.evaluate(data.selection, steps=1, verbose=0)
        keras.utils.set_random_seed(recipe.seed + epoch)  # the layers' seeds are those of the checkpoint
    batches = data.train(epoch)
    started = time.perf_counter()
    fitted = session.trainer.fit(
        batches.skip(step) if step else batches,
        # Given though the data ends by itself: else Keras warns when data of unknown length ends.
        steps_per_epoch=data.steps - step,
        validation_data=data.selection,
        validation_steps=data.selection_steps,
        initial_epoch=epoch - 1,
        epochs=epoch,
        shuffle=False,  # the data shuffles itself
        verbose=0,
        callbacks=[FiniteLoss(step), *callbacks],
    )
    logs = {name: float(values[-1]) for name, values in fitted.history.items()}
    return EpochRecord(
        epoch=epoch,
        learning_rate=session.rate_at(epoch * data.steps - 1),
        train_loss=logs["loss"],
        train_accuracy=logs.get("accuracy"),
        selection_loss=logs["val_loss"],
        selection_accuracy=logs.get("val_accuracy"),
        selection_agreement=logs.get("val_agreement"),
        seconds=time.perf_counter() - started,
    )


def _evaluate_given(session: Session, data: EpochData) -> EpochRecord:
    started = time.perf_counter()
    found = session.trainer.evaluate(data.selection, steps=data.selection_steps, verbose=0, return_dict=True)
    logs = {name: float(value) for name, value in found.items()}
    return EpochRecord(
        epoch=0,
        learning_rate=None,
        train_loss=None,
        train_accuracy=None,
        selection_loss=logs["loss"],
        selection_accuracy=logs.get("accuracy"),
        selection_agreement=logs.get("agreement"),
        seconds=time.perf_counter() - started,
    )


def _log_given(given: EpochRecord) -> None:
    shares = {"accuracy": given.selection_accuracy, "agreement": given.selection_agreement}
    known = "".join(f", {name} {share:.2%}" for name, share in shares.items() if share is not None)
    _logger.info("As given: selection loss %.4f%s.", given.selection_loss, known)


def _freezing(recipe: Recipe) -> list[keras.callbacks.Callback]:
    batch_norm, ranges = parse_batch_norm(recipe.batch_norm), recipe.freeze_ranges_after
    return [
        *([FreezeBatchNorm(batch_norm)] if batch_norm else []),
        *([FreezeRanges(ranges)] if ranges is not None else []),
    ]


def _keeper(position: Position, steps: int, keep: Callable[[Position], None], every_s: float) -> StateKeeper:
    return StateKeeper(
        lambda step, metrics: keep(replace(position, step=step, metrics=metrics)),
        every_s,
        steps,
        first_step=position.step,
        metrics=position.metrics,
    )

"""Going on from a checkpoint, or not: what is damaged or of another run is set aside and never deleted."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat.errors import StorageError
from keras_qat.training.checkpoint import (
    BEST,
    HISTORY,
    LAST,
    OPTIMIZER,
    STATE,
    TENSORBOARD,
    Position,
    RunIdentity,
    named_variables,
    save_best,
)
from keras_qat.training.history import History
from keras_qat.training.optimizer_state import load_optimizer
from keras_qat.training.recipe import Recipe
from keras_qat.training.session import Session

_logger = logging.getLogger(__name__)


def load_checkpoint(folder: Path, identity: RunIdentity, session: Session) -> Position | None:
    """Put a checkpoint's weights into `session`.

    Args:
        folder: what `save_checkpoint` wrote to.
        identity: of the run that wants to go on.
        session: freshly opened; gets the weights and the optimizer's state. After `None` throw it away, for
            it may hold a part of them.

    Returns:
        The position, or `None` where there is no checkpoint, or it is of another run or damaged; then its files have
        been set aside, and the log says which it was.

    Raises:
        StorageError: the files can't be read or moved, though they may be whole.
        MemoryError: they don't fit.
    """
    if not (folder / LAST).exists():
        return None
    try:
        position, in_hand = _read(folder, identity, session)
    except _UnusableError as error:
        set_aside(folder, f"The checkpoint in {folder} is of no use, {error}")
        return None
    if in_hand:
        # A kill before the second rename left an older one, and no later epoch need be better.
        save_best(folder, session)
    return position


def _read(folder: Path, identity: RunIdentity, session: Session) -> tuple[Position, bool]:
    """The position, and whether the best epoch's weights are known without their file."""
    # Opened here: NumPy leaves a damaged archive open.
    with _damage_named(folder / LAST), (folder / LAST).open("rb") as stream, np.load(stream) as file:
        arrays = {name: file[name] for name in file.files}
    with _damage_named(folder / LAST):
        # Checkpoints that don't say so are of a time when all images had labels.
        state = {"labelled": True, "data": "", **json.loads(str(arrays[STATE]))}
        differing = [name for name, value in identity.to_dict().items() if state[name] != value]
    if differing:
        raise _UnusableError(f"being of another run ({', '.join(differing)} differs)")
    with _damage_named(folder / LAST):
        position = _restore(arrays, state, identity.recipe, session)
    return position, _load_best(folder, session, position)


def _restore(arrays: dict[str, Any], state: dict[str, Any], recipe: Recipe, session: Session) -> Position:
    history = History.from_list(state["history"], recipe.monitor)
    for name, variable in named_variables(session):
        variable.assign(arrays[name])
    optimizer = {k.removeprefix(OPTIMIZER): v for k, v in arrays.items() if k.startswith(OPTIMIZER)}
    # What was frozen since the optimizer was built is frozen again when its epoch begins.
    load_optimizer(session.trainer.optimizer, optimizer, session.working.variables, partial=recipe.freezes_later)
    metrics = tuple(arrays[f"metrics/{i}"] for i in range(sum(k.startswith("metrics/") for k in arrays)))
    return Position(history, state["step"], metrics)


def _load_best(folder: Path, session: Session, position: Position) -> bool:
    """Put the best epoch's weights into `session.best`; whether they are known without the file."""
    best = position.history.best_epoch
    if best == 0:
        return True  # the model as given, which a fresh session holds
    if position.step == 0 and best == position.history.last_epoch:
        session.keep_best()
        return True
    if not (folder / BEST).exists():
        raise _UnusableError(f"for {LAST} is whole, but {BEST} is missing, which held its best epoch, {best}")
    with _damage_named(folder / BEST, f"{LAST} is whole, but "):
        session.best.load_weights(folder / BEST)
    return False


class _UnusableError(Exception):
    """Why a checkpoint can't be gone on from."""


@contextmanager
def _damage_named(path: Path, but: str = "") -> Iterator[None]:
    """Tell a file that is damaged from one that can't be read now."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # The system's errors have a number; those of HDF5 and zip archives, which find damage, don't.
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(
                f"Can't read {path}: {error.strerror or error}. Received: {str(path)!r}. "
                "Mend the access and run the same again, or choose another folder."
            ) from error
        reason = str(error).splitlines()[0] if str(error) else "no details"
        raise _UnusableError(f"for {but}{path.name} is damaged ({type(error).__name__}: {reason})") from error


def set_aside(folder: Path, why: str) -> None:
    """Move the files of an earlier run, if there are any, to `earlier-1`, `earlier-2`, … in the folder, and say so.

    The state goes first, so that no mixture of two runs can be read.

    Args:
        folder: of the run.
        why: the log's first words.

    Raises:
        StorageError: they can't be moved.
    """
    names = [name for name in (LAST, BEST, HISTORY, TENSORBOARD) if (folder / name).exists()]
    if not names:
        return
    place = next(p for p in (folder / f"earlier-{i}" for i in count(1)) if not p.exists())
    try:
        place.mkdir()
        for name in names:
            (folder / name).rename(place / name)
    except OSError as error:
        raise StorageError(
            f"Can't move the files of an earlier run: {error.strerror or error}. Received: {str(folder)!r}. "
            "Choose another folder."
        ) from error
    _logger.warning("%s: starting anew. The files of the earlier run are in %s.", why, place)

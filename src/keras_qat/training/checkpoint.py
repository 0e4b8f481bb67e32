"""Checkpoints that a killed run can always go on from, in the middle of an epoch too.

A folder holds `last.npz`: everything that the next step depends on (weights, ranges, seeds, the optimizer's state, the
running means of the epoch), which run it is of, the finished epochs, and the position in the data. It is one file,
written whole beside the old one and then renamed, so there is no mixture of two moments. `best.keras` is the best
epoch's model; a kill between the two renames leaves an older one, which is mended at reading
(`keras_qat.training.restore`): the best epoch, if it is the last one, is in `last.npz`. `history.json` is for reading.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_qat.storage import atomic_path, require_space, write_json
from keras_qat.training.history import History
from keras_qat.training.optimizer_state import dump_optimizer
from keras_qat.training.recipe import Recipe
from keras_qat.training.session import Session

LAST, BEST, HISTORY, TENSORBOARD = "last.npz", "best.keras", "history.json", "tensorboard"
STATE, OPTIMIZER = "state", "optimizer/"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunIdentity:
    """What must be equal for a run to go on from a checkpoint.

    Args:
        recipe: every setting.
        steps_per_epoch: steps of one epoch, as counted from the data.
        model: fingerprint of the model as given.
        teacher: fingerprint of the teacher; empty without one.
        labelled: whether the images have labels, which decides what is measured.
        data: what the caller knows the images by; empty if nothing.
    """

    recipe: Recipe
    steps_per_epoch: int
    model: str
    teacher: str = ""
    labelled: bool = True
    data: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the identity, as JSON holds it."""
        plain = {
            "recipe": self.recipe.to_dict(),
            "steps_per_epoch": self.steps_per_epoch,
            "model": self.model,
            "teacher": self.teacher,
            "labelled": self.labelled,
            "data": self.data,
        }
        return dict(json.loads(json.dumps(plain)))  # tuples become lists, as in a file that was read


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Args:
        history: the finished epochs.
        step: steps taken of the epoch after them.
        metrics: values of the metrics' variables over those steps; empty at the start of an epoch.
    """

    history: History
    step: int = 0
    metrics: tuple[np.ndarray, ...] = ()


def save_checkpoint(folder: Path, identity: RunIdentity, session: Session, position: Position) -> None:
    """Write the state at a position; within an epoch only one whose numbers are finite, or the last good one stays.

    Raises:
        StorageError: the folder can't be written.
    """
    history = position.history
    state = {**identity.to_dict(), "step": position.step, "history": history.to_list()}
    arrays = {name: ops.convert_to_numpy(value) for name, value in named_variables(session)}
    optimizer = dump_optimizer(session.trainer.optimizer, session.working.variables)
    arrays |= {OPTIMIZER + path: value for path, value in optimizer.items()}
    if position.step and not all(np.isfinite(value).all() for value in arrays.values()):
        _logger.warning("The weights aren't finite after step %d: %s stays as it was.", position.step, folder / LAST)
        return
    arrays |= {f"metrics/{i}": value for i, value in enumerate(position.metrics)}
    arrays[STATE] = np.array(json.dumps(state))
    with atomic_path(folder / LAST) as last:
        np.savez(last, allow_pickle=False, **arrays)
    if position.step == 0:
        write_json(folder / HISTORY, {"recipe": identity.recipe.to_dict(), "epochs": history.to_list()})
        if history.best_epoch == history.last_epoch:
            save_best(folder, session)


def require_room(folder: Path, session: Session) -> None:
    """Find out before hours of training that the checkpoints will not fit on the disk.

    Raises:
        StorageError: there is less room than both files take twice, for the new ones are written beside the old.
    """
    variables = [value for _, value in named_variables(session)] + list(session.trainer.optimizer.variables)
    last = sum(4 * int(np.prod(value.shape)) for value in variables)
    best = sum(4 * int(np.prod(value.shape)) for value in session.best.variables)
    require_space(folder, 2 * (last + best))


def save_best(folder: Path, session: Session) -> None:
    """Write the best epoch's model."""
    with atomic_path(folder / BEST) as best:
        session.best.save(best)


def named_variables(session: Session) -> list[tuple[str, Any]]:
    """All variables of the model that trains, seeds of dropout included, under names that every process gives them."""
    return [(f"model/{i}", variable) for i, variable in enumerate(session.working.variables)]

"""Checkpoints that a killed run can always go on from.

A folder holds `state.json` (which run, which epochs), `last.keras` (with the optimizer) and `best.keras`. All
three are written whole beside the old ones, then renamed: state, last, best. A kill between two renames is
mended at reading:

- state new, last old: the optimizer's step count in `last.keras` shows it; the history is cut by that epoch.
- state and last new, best old: the best epoch, if it is the last one, is read from `last.keras`
  and `best.keras` is written again.
"""

import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_qat.storage import atomic_path
from keras_qat.training.history import History
from keras_qat.training.recipe import Recipe
from keras_qat.training.session import Session

STATE, LAST, BEST = "state.json", "last.keras", "best.keras"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunIdentity:
    """What must be equal for a run to go on from a checkpoint.

    Args:
        recipe: every setting.
        steps_per_epoch: steps of one epoch, as counted from the data.
        model: fingerprint of the model as given.
    """

    recipe: Recipe
    steps_per_epoch: int
    model: str

    def to_dict(self) -> dict[str, Any]:
        """Return the identity, as JSON holds it."""
        plain = {
            "recipe": self.recipe.to_dict(),
            "steps_per_epoch": self.steps_per_epoch,
            "model": self.model,
        }
        return dict(json.loads(json.dumps(plain)))  # tuples become lists, as in a file that was read


def save_checkpoint(folder: Path, identity: RunIdentity, session: Session, history: History) -> None:
    """Write the state after the last epoch of `history`.

    Raises:
        StorageError: the folder can't be written.
    """
    is_best = history.best_epoch == history.last_epoch
    state = {
        **identity.to_dict(),
        "epoch": history.last_epoch,
        "best_epoch": history.best_epoch,
        "steps": session.steps,
        "history": history.to_list(),
    }
    # An exit stack unwinds from the end, so the last one entered is renamed first.
    with ExitStack() as stack:
        best = stack.enter_context(atomic_path(folder / BEST)) if is_best else None
        last = stack.enter_context(atomic_path(folder / LAST))
        text = stack.enter_context(atomic_path(folder / STATE))
        if best is not None:
            session.best.save(best)
        session.working.save(last)
        text.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


def load_checkpoint(folder: Path, identity: RunIdentity, session: Session) -> History | None:
    """Put a checkpoint's weights into `session`.

    Args:
        folder: what `save_checkpoint` wrote to.
        identity: of the run that wants to go on.
        session: freshly opened; gets the weights and the optimizer's state. After `None` throw it away, for
            it may hold a part of them.

    Returns:
        The finished epochs, or `None` where there is no checkpoint, or it is of another run or can't be read;
        the log says which.

    Raises:
        StorageError: the folder can't be written.
    """
    if not (folder / STATE).exists():
        return None
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        wanted = identity.to_dict()
        differing = [name for name, value in wanted.items() if state[name] != value]
        if differing:
            _logger.warning(
                "The checkpoint in %s is of another run (%s differs): starting anew.",
                folder,
                ", ".join(differing),
            )
            return None
        history = History.from_list(state["history"])
        session.working.load_weights(folder / LAST)
        if session.steps < state["steps"]:
            history = History(history.records[:-1])
        elif session.steps > state["steps"]:
            raise ValueError(f"{LAST} is {session.steps} steps on, {STATE} {state['steps']}")  # noqa: TRY301
        if history.best_epoch == history.last_epoch:
            session.best.set_weights(session.working.get_weights())
        else:
            session.best.load_weights(folder / BEST)
    except Exception as error:  # noqa: BLE001 - a damaged archive fails in zipfile, h5py, Keras or json, each its way
        reason = str(error).splitlines()[0] if str(error) else "no details"
        _logger.warning(
            "Can't read the checkpoint in %s (%s: %s): starting anew.", folder, type(error).__name__, reason
        )
        return None
    if history.best_epoch == history.last_epoch:
        # A kill before the last rename left an older one, and no later epoch need be better.
        with atomic_path(folder / BEST) as best:
            session.best.save(best)
    return history


def clear_checkpoint(folder: Path) -> None:
    """Remove the files of an earlier run, the state first, so that no mixture of two runs can be read."""
    for name in (STATE, LAST, BEST):
        (folder / name).unlink(missing_ok=True)

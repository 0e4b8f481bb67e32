"""Learning-rate schedules: by name, or as pieces such as `1.0@1,0.1@2,0.01@7`."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras

from keras_qat.errors import UserError

Piece = tuple[float, float]
"""A multiplier of the learning rate, and the epoch (counted from 0) at which it takes over."""

DEFAULT_PIECES: tuple[Piece, ...] = ((1.0, 1.0), (0.1, 2.0), (0.01, 7.0))
SCHEDULE_NAMES = ("warmup-cosine", "cosine", "piecewise", "constant")
_WARM_UP = 0.1

_HOW = (
    "Give one of 'warmup-cosine', 'cosine', 'piecewise', 'constant', or multiplier@start-epoch pieces with ascending "
    "epochs, such as '1.0@1,0.1@2,0.01@7'."
)


@keras.saving.register_keras_serializable(package="keras_qat")
class PiecewiseWithWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then a constant rate per piece.

    With e = step / steps_per_epoch (a fraction), pieces (m₀, e₀), (m₁, e₁), … and the rate η:

        η(e) = η · m₀ · e / e₀      for e < e₀
        η(e) = η · mᵢ               for eᵢ ≤ e < eᵢ₊₁

    which is `learning_rate_schedule` of TensorFlow's official ResNet
    (https://github.com/tensorflow/models, `official/vision/image_classification/resnet/common.py`), after
    Goyal et al., "Accurate, Large Minibatch SGD", 2017 (https://arxiv.org/abs/1706.02677). A first piece that
    starts at epoch 0 has no warm-up.

    Args:
        initial_learning_rate: η, above 0.
        steps_per_epoch: steps of one epoch, at least 1.
        pieces: (multiplier, start epoch) with ascending start epochs.

    Raises:
        UserError: a setting is out of range, or the epochs don't ascend.

    Example:
        >>> schedule = PiecewiseWithWarmup(0.5, steps_per_epoch=10, pieces=[(1.0, 1), (0.1, 2)])
        >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 19, 20)]
        [0.0, 0.25, 0.5, 0.5, 0.05]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        steps_per_epoch: int,
        pieces: Sequence[Sequence[float]] = DEFAULT_PIECES,
    ) -> None:
        super().__init__()
        check_learning_rate(initial_learning_rate)
        _check_at_least_one(steps_per_epoch=steps_per_epoch)
        self.initial_learning_rate = float(initial_learning_rate)
        self.steps_per_epoch = int(steps_per_epoch)
        self.pieces = check_pieces(pieces)

    def __call__(self, step: Any) -> Any:
        """Return the rate of `step` (an integer from 0) as a float32 scalar tensor."""
        epoch = keras.ops.cast(step, "float32") / self.steps_per_epoch
        multiplier, warm_up = self.pieces[0]
        peak = self.initial_learning_rate * multiplier
        rate = peak * epoch / warm_up if warm_up else keras.ops.zeros_like(epoch)
        for multiplier, start in self.pieces:
            rate = keras.ops.where(epoch >= start, self.initial_learning_rate * multiplier, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as JSON can hold them."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "steps_per_epoch": self.steps_per_epoch,
            "pieces": [list(piece) for piece in self.pieces],
        }


def make_schedule(
    name_or_pieces: str | Sequence[Sequence[float]],
    learning_rate: float,
    steps_per_epoch: int,
    epochs: int,
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Make the schedule of a whole run.

    Args:
        name_or_pieces: `"cosine"` (to 0 at the end of the last epoch), `"warmup-cosine"` (linearly up for the first
            tenth of all steps, then so), `"piecewise"` (`DEFAULT_PIECES`), `"constant"`, the text that `parse_schedule`
            reads, or (multiplier, start epoch) pieces.
        learning_rate: the rate that multipliers count from, above 0.
        steps_per_epoch: steps of one epoch.
        epochs: epochs of the run; only cosine needs it.

    Raises:
        UserError: the name is unknown, or a setting is out of range.

    Example:
        >>> schedule = make_schedule("cosine", 0.1, steps_per_epoch=10, epochs=2)
        >>> [round(float(schedule(step)), 3) for step in (0, 10, 20)]
        [0.1, 0.05, 0.0]
    """
    check_learning_rate(learning_rate)
    _check_at_least_one(steps_per_epoch=steps_per_epoch, epochs=epochs)
    parsed = parse_schedule(name_or_pieces) if isinstance(name_or_pieces, str) else name_or_pieces
    total = steps_per_epoch * epochs
    if parsed == "cosine":
        return keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=total)
    if parsed == "warmup-cosine":
        warm_up = max(round(_WARM_UP * total), 1)
        return keras.optimizers.schedules.CosineDecay(
            learning_rate / (warm_up + 1),  # not from 0, which would waste a step
            decay_steps=max(total - warm_up, 1),
            warmup_target=learning_rate,
            warmup_steps=warm_up,
        )
    if parsed == "constant":
        return PiecewiseWithWarmup(learning_rate, steps_per_epoch, [(1.0, 0.0)])
    pieces = DEFAULT_PIECES if isinstance(parsed, str) else check_pieces(parsed)
    return PiecewiseWithWarmup(learning_rate, steps_per_epoch, pieces)


def parse_schedule(text: str) -> str | tuple[Piece, ...]:
    """Read a schedule as the command line takes it: a name, or pieces.

    Raises:
        UserError: the text is neither.

    Example:
        >>> parse_schedule("1.0@1,0.1@2")
        ((1.0, 1.0), (0.1, 2.0))
        >>> parse_schedule("cosine")
        'cosine'
    """
    text = text.strip()
    if text in SCHEDULE_NAMES:
        return text
    try:
        pieces = [tuple(float(number) for number in part.split("@")) for part in text.split(",")]
    except ValueError:
        raise UserError(f"Can't read the learning-rate schedule. Received: {text!r}. {_HOW}") from None
    return check_pieces(pieces)


def check_pieces(pieces: Sequence[Sequence[float]]) -> tuple[Piece, ...]:
    """Return `pieces` as a tuple of float pairs.

    Raises:
        UserError: there are none, one isn't a pair, a multiplier isn't above 0, or the epochs don't ascend.
    """
    shaped = len(pieces) > 0 and all(len(piece) == 2 for piece in pieces)  # noqa: PLR2004
    if shaped:
        pairs = tuple((float(multiplier), float(start)) for multiplier, start in pieces)
        finite = all(math.isfinite(number) for pair in pairs for number in pair)
        ascending = pairs[0][1] >= 0 and all(a[1] < b[1] for a, b in pairwise(pairs))
        if finite and ascending and all(multiplier > 0 for multiplier, _ in pairs):
            return pairs
    raise UserError(
        "The pieces of a learning-rate schedule must be (multiplier above 0, start epoch) pairs with "
        f"ascending epochs. Received: {list(pieces)!r}. {_HOW}"
    )


def check_learning_rate(learning_rate: float) -> None:
    """Refuse a rate that isn't a finite number above 0.

    Raises:
        UserError: so it is.
    """
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise UserError(
            f"The learning rate must be a finite number above 0. Received: {learning_rate}. "
            "Fine-tuning usually starts between 1e-5 and 1e-3."
        )


def _check_at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"`{name}` must be at least 1. Received: {name}={count}. Give a positive integer.")

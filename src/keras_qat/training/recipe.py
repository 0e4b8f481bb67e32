"""A training recipe: every setting of a fine-tuning run, as one value."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from keras_qat.errors import UserError
from keras_qat.training.optimizers import DEFAULT_OPTIMIZER, require_optimizer
from keras_qat.training.schedule import Piece, check_learning_rate, check_pieces, parse_schedule

_SEEDS = 2**31


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune; two runs with the same recipe, model and data on a CPU give the same weights.

    Args:
        optimizer: a key of `keras_qat.training.optimizers.OPTIMIZERS`.
        schedule: `"piecewise"`, `"cosine"`, `"constant"`, a text such as `"1.0@1,0.1@2"`, or (multiplier,
            start epoch) pieces.
        learning_rate: the rate that the schedule's multipliers count from.
        epochs: how many epochs to train, at least 1.
        steps_per_epoch: the most steps of one epoch; `None` takes all the data.
        batch_size: images of one step. The caller makes the batches; this is the number it makes them by.
        seed: of everything random, below 2³¹. Epoch e runs with seed + e.
        freeze_batch_norm: keep BatchNorm's statistics, scale and offset as they are.

    Raises:
        UserError: a setting is unknown or out of range.

    Example:
        >>> Recipe(epochs=3, schedule="cosine").learning_rate
        0.001
        >>> Recipe.from_dict(Recipe(seed=7).to_dict()) == Recipe(seed=7)
        True
    """

    optimizer: str = DEFAULT_OPTIMIZER
    schedule: str | tuple[Piece, ...] = "piecewise"
    learning_rate: float = 1e-3
    epochs: int = 10
    steps_per_epoch: int | None = None
    batch_size: int = 64
    seed: int = 0
    freeze_batch_norm: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that can't be trained with."""
        require_optimizer(self.optimizer)
        if isinstance(self.schedule, str):
            parse_schedule(self.schedule)
        else:
            # The one write that a frozen value needs: lists from JSON become tuples.
            object.__setattr__(self, "schedule", check_pieces(self.schedule))
        check_learning_rate(self.learning_rate)
        counts = {
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
            "batch_size": self.batch_size,
        }
        for name, count in counts.items():
            if count is not None and count < 1:
                raise UserError(f"`{name}` must be at least 1. Received: {name}={count}. Give a positive integer.")
        if not 0 <= self.seed < _SEEDS:
            raise UserError(f"`seed` must be from 0 to 2³¹ - 1. Received: seed={self.seed}. Choose another.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Recipe":
        """Make a recipe from `to_dict`'s result, or from a part of it; what is absent takes its default.

        Raises:
            UserError: a setting is unknown or out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise UserError(f"Unknown settings in a recipe. Received: {unknown}. Use some of: {', '.join(known)}.")
        return cls(**settings)

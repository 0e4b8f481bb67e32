"""A training recipe: every setting of a fine-tuning run, as one value.

Keras is not imported here: the command line reads the options of a recipe before it loads Keras.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from types import NoneType
from typing import Any, Literal, get_args

from keras_qat.errors import (
    MANY,
    MOST_IMAGES_AT_ONCE,
    UserError,
    is_number,
    require_number,
    settle_numbers,
)
from keras_qat.types import Monitor, RangeMode, TrainingPrecision

Piece = tuple[float, float]
"""A multiplier of the learning rate, and the epoch (counted from 0) at which it takes over."""

DEFAULT_PIECES: tuple[Piece, ...] = ((1.0, 1.0), (0.1, 2.0), (0.01, 7.0))
SCHEDULE_NAMES = ("warmup-cosine", "cosine", "piecewise", "constant")

_HOW = (
    "Give one of 'warmup-cosine', 'cosine', 'piecewise', 'constant', or multiplier@start-epoch pieces with ascending "
    "epochs, such as '1.0@1,0.1@2,0.01@7'."
)

DEFAULT_OPTIMIZER = "adam"

OPTIMIZER_NAMES = ("sgd-momentum", "sgd", "adam")
"""The keys of `keras_qat.training.optimizers.OPTIMIZERS`."""


@dataclass(frozen=True)
class Distillation:
    """The float model as a teacher: training brings the quantized model's outputs close to the teacher's.

        L = (1 - w) · L_labels + w · (T² · KL(teacher_T ‖ student_T) + v · Σ_f ‖t_f - s_f‖² / ‖t_f‖²)

    (Hinton et al. 2015, https://arxiv.org/abs/1503.02531; features as in Romero et al. 2015,
    https://arxiv.org/abs/1412.6550). KL is the divergence of probabilities: of a softmax, a sigmoid, or logits of
    classes. For any other output t of the teacher and s of the student, ‖t - s‖² / ‖t‖² takes its place. The terms of
    several outputs are averaged.

    Args:
        weight: the float model's share w in the loss, above 0 and at most 1. With 1, training needs no labels. On the
            command line, 0 trains on the labels alone.
        temperature: temperature T of the distillation, above 0. Above 1, small probabilities count more.
        features: names of layers, the same in both models, whose outputs are matched as well; auto takes the layers
            where branches join.
        feature_weight: weight v of each layer of `features` in the loss.

    Raises:
        UserError: If a number is out of range.
    """

    weight: float = 1.0
    temperature: float = 1.0
    features: tuple[str, ...] | Literal["auto"] = "auto"
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers that are out of range."""
        settle_numbers(self)
        if self.features != "auto":
            if not isinstance(self.features, list | tuple) or not all(isinstance(name, str) for name in self.features):
                raise UserError(
                    f"`features` must be names of layers in a list, or 'auto'. Received: {self.features!r}. "
                    "Give them as ['block1_out', 'block2_out']."
                )
            names = tuple(self.features)
            object.__setattr__(self, "features", "auto" if names == ("auto",) else names)
        ranges = {
            "weight": (self.weight, 0 < self.weight <= 1, "above 0 and at most 1"),
            "temperature": (self.temperature, 0 < self.temperature < math.inf, "above 0"),
            "feature_weight": (self.feature_weight, 0 <= self.feature_weight < math.inf, "0 or more"),
        }
        for name, (value, fine, how) in ranges.items():
            if not fine:
                raise UserError(f"`{name}` of a distillation must be {how}. Received: {name}={value}. Choose another.")


@dataclass(frozen=True)
class Recipe:
    """The settings of fine-tuning. On a CPU, equal recipes, models and data give equal weights.

    Args:
        optimizer: adam, sgd-momentum or sgd.
        schedule: schedule of the learning rate: warmup-cosine, cosine, piecewise (warm-up, then 1.0@1,0.1@2,0.01@7),
            constant, or multiplier@start-epoch pieces such as 1.0@1,0.1@2. Python takes (multiplier, start epoch)
            pairs, too.
        learning_rate: the rate that the multipliers of the schedule apply to.
        epochs: number of epochs, at least 1.
        steps_per_epoch: the most steps of one epoch. If not given, all training images.
        batch_size: images in one step of training.
        accumulate: steps whose gradients are averaged before the weights change: with 4, batches of 16 train like
            batches of 64 in a quarter of the memory.
        seed: seed of everything random, below 2³¹. Epoch e uses seed + e. The same seed gives the same results on
            the same machine.
        batch_norm: freeze, train, or freeze_after=N to train during the first N epochs. A frozen batch norm keeps its
            statistics, scale and offset.
        range_mode: what training does to the ranges of activations: fixed, ema or learned.
        freeze_ranges_after: number of epochs after which ema or learned ranges are kept. If not given, they change to
            the end.
        weight_decay: decoupled weight decay of kernels. It does not act on biases, batch norms and ranges.
        clip_norm: the most that the global norm of the gradients may be. If not given, gradients are not clipped.
        distillation: the teacher's part in the loss. `None` trains on the labels alone.
        label_smoothing: share of a label that is spread over all classes, from 0 to less than 1.
        training_precision: precision of the layers' arithmetic in training and selection: float32 or mixed_bfloat16.
            The integers of weights are those of float32.
        monitor: what chooses the best epoch: loss or accuracy, on training images that are held out for it.

    Raises:
        UserError: If a setting is unknown or out of range, or another setting makes it idle.

    Example:
        >>> Recipe(epochs=3, schedule="cosine").epochs
        3
        >>> Recipe.from_dict(Recipe(seed=7).to_dict()) == Recipe(seed=7)
        True
    """

    optimizer: str = DEFAULT_OPTIMIZER
    schedule: str | tuple[Piece, ...] = "warmup-cosine"
    learning_rate: float = 3e-6
    epochs: int = 10
    steps_per_epoch: int | None = None
    batch_size: int = 64
    accumulate: int = 1
    seed: int = 0
    batch_norm: str = "freeze"
    range_mode: RangeMode = "fixed"
    freeze_ranges_after: int | None = None
    weight_decay: float = 0.0
    clip_norm: float | None = None
    distillation: Distillation | None = Distillation()
    label_smoothing: float = 0.0
    training_precision: TrainingPrecision = "float32"
    monitor: Monitor = "loss"

    def __post_init__(self) -> None:
        """Refuse settings that can't be trained with."""
        settle_numbers(self, batch_size=(1, MOST_IMAGES_AT_ONCE), seed=(0, MANY))
        require_optimizer(self.optimizer)
        # The one write that a frozen value needs: equal schedules become equal values, from text or from JSON's lists.
        parsed = parse_schedule(self.schedule) if isinstance(self.schedule, str) else check_pieces(self.schedule)
        object.__setattr__(self, "schedule", parsed)
        check_learning_rate(self.learning_rate)
        parse_batch_norm(self.batch_norm)
        self._require_choices()
        self._require_numbers()
        self._require_effect()

    def _require_choices(self) -> None:
        for name, kind in (("range_mode", RangeMode), ("training_precision", TrainingPrecision), ("monitor", Monitor)):
            value, known = getattr(self, name), get_args(kind)
            if value not in known:
                raise UserError(f"Unknown `{name}`. Received: {value!r}. Use one of: {', '.join(known)}.")

    def _require_numbers(self) -> None:
        ranges = {
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "from 0 to less than 1"),
            "clip_norm": (self.clip_norm is None or 0 < self.clip_norm < math.inf, "above 0"),
        }
        for name, (fine, how) in ranges.items():
            if not fine:
                raise UserError(f"`{name}` must be {how}. Received: {name}={getattr(self, name)}. Choose another.")

    def _require_effect(self) -> None:
        """Refuse a setting that another setting makes idle, since the user expects an effect."""
        if self.label_smoothing and self.distillation is not None and self.distillation.weight == 1:
            raise UserError(
                "`label_smoothing` smooths labels, and a distillation of weight 1 doesn't look at them. Received: "
                f"label_smoothing={self.label_smoothing}. Set it to 0, or give the distillation a weight below 1."
            )
        if self.freeze_ranges_after is not None and self.range_mode == "fixed":
            raise UserError(
                "`freeze_ranges_after` freezes ranges that move, and fixed ones don't. Received: "
                f"freeze_ranges_after={self.freeze_ranges_after}, range_mode='fixed'. Leave it out, or set "
                "`range_mode` to 'ema' or 'learned'."
            )

    @property
    def needs_labels(self) -> bool:
        """Whether training needs labels.

        Example:
            >>> Recipe().needs_labels, Recipe(distillation=None).needs_labels, Recipe(monitor="accuracy").needs_labels
            (False, True, True)
        """
        return self.distillation is None or self.distillation.weight < 1 or self.monitor == "accuracy"

    @property
    def freezes_later(self) -> bool:
        """Whether batch norms or ranges are frozen in the middle of the run."""
        return bool(parse_batch_norm(self.batch_norm)) or self.freeze_ranges_after is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Recipe":
        """Make a recipe from `to_dict`'s result, or from a part of it; what is absent takes its default.

        Raises:
            UserError: If a setting is unknown or out of range.
        """
        _require_known(cls, settings)
        distillation = settings.get("distillation")
        if not isinstance(distillation, Mapping | Distillation | NoneType):
            raise UserError(
                f"`distillation` of a recipe must be an object or null. Received: {distillation!r}. Give the settings "
                "of `Distillation` by their names."
            )
        if isinstance(distillation, Mapping):
            _require_known(Distillation, distillation)
            return cls(**{**settings, "distillation": Distillation(**distillation)})
        return cls(**settings)


def _require_known(kind: Any, settings: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(kind)]
    if not isinstance(settings, Mapping):
        raise UserError(f"A recipe must be an object. Received: {settings!r}. Use some of: {', '.join(known)}.")
    unknown = sorted(map(str, set(settings) - set(known)))
    if unknown:
        raise UserError(f"Unknown settings in a recipe. Received: {unknown}. Use some of: {', '.join(known)}.")


def require_optimizer(name: str) -> None:
    """Refuse a name that is not in `OPTIMIZER_NAMES`.

    Raises:
        UserError: If the name is unknown. The message lists the known names.
    """
    if name not in OPTIMIZER_NAMES:
        raise UserError(f"Unknown optimizer. Received: {name!r}. Use one of: {', '.join(OPTIMIZER_NAMES)}.")


def parse_schedule(text: str) -> str | tuple[Piece, ...]:
    """Read a schedule as the command line takes it: a name, or pieces.

    Raises:
        UserError: If the text is neither.

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
        UserError: If there are no pieces, a piece isn't a pair, a multiplier isn't above 0, or the epochs don't ascend.
    """
    if _are_pairs(pieces):
        pairs = tuple((float(multiplier), float(start)) for multiplier, start in pieces)
        finite = all(math.isfinite(number) for pair in pairs for number in pair)
        ascending = pairs[0][1] >= 0 and all(a[1] < b[1] for a, b in pairwise(pairs))
        if finite and ascending and all(multiplier > 0 for multiplier, _ in pairs):
            return pairs
    raise UserError(
        "The pieces of a learning-rate schedule must be (multiplier above 0, start epoch) pairs with "
        f"ascending epochs. Received: {pieces!r}. {_HOW}"
    )


def _are_pairs(pieces: Any) -> bool:
    """Whether a value, of JSON perhaps, is a list of pairs of numbers."""
    if not isinstance(pieces, list | tuple) or not pieces:
        return False
    pairs = all(isinstance(piece, list | tuple) and len(piece) == 2 for piece in pieces)  # noqa: PLR2004
    return pairs and all(is_number(number) for piece in pieces for number in piece)


def check_learning_rate(learning_rate: float) -> None:
    """Refuse a rate that isn't a finite number above 0.

    Raises:
        UserError: If the rate is not a positive finite number.
    """
    if not 0 < require_number("learning_rate", learning_rate) < math.inf:
        raise UserError(
            f"The learning rate must be a finite number above 0. Received: {learning_rate}. "
            "Fine-tuning usually starts between 1e-5 and 1e-3."
        )


_FREEZE_AFTER = re.compile("freeze_after=([0-9]{1,9})")


def parse_batch_norm(mode: str) -> int | None:
    """Read the mode of batch norms: after how many epochs they freeze, `None` for never.

    Raises:
        UserError: If the mode is none of `freeze`, `train`, `freeze_after=N`.

    Example:
        >>> [parse_batch_norm(mode) for mode in ("freeze", "freeze_after=2", "train")]
        [0, 2, None]
    """
    if mode in ("freeze", "train"):
        return 0 if mode == "freeze" else None
    match = _FREEZE_AFTER.fullmatch(mode) if isinstance(mode, str) else None
    if match is not None and (count := int(match[1])) > 0:
        return count
    raise UserError(
        f"Unknown mode of batch norms. Received: {mode!r}. Use 'freeze', 'train', or 'freeze_after=N' with N from 1."
    )

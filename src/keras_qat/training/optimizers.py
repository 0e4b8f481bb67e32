"""An optimizer's state, for a checkpoint and for the optimizer that takes over when something freezes.

Optimizers by name, for recipes and the command line.

Learning-rate schedules: by name, or as pieces such as `1.0@1,0.1@2,0.01@7`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.training.recipe import (
    DEFAULT_PIECES,
    check_learning_rate,
    check_pieces,
    parse_schedule,
    require_optimizer,
)


def dump_optimizer(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any] = ()) -> dict[str, Any]:
    """The optimizer's state: path of a variable → its value as a NumPy array.

    Args:
        optimizer: built.
        variables: of the model, whose places in this list stand for their paths: layers that were given no name have
            another one in the next process.
    """
    return {path: keras.ops.convert_to_numpy(variable) for path, variable in _by_path(optimizer, variables)}


def load_optimizer(
    optimizer: keras.optimizers.Optimizer,
    state: dict[str, Any],
    variables: Sequence[Any] = (),
    *,
    partial: bool = False,
) -> None:
    """Put a state into a built optimizer; what is of variables that it doesn't train is left out.

    Args:
        optimizer: to change.
        state: from `dump_optimizer`.
        variables: as they were given there.
        partial: leave variables that the state lacks as they are.

    Raises:
        KeyError: the state lacks a variable.
    """
    for path, variable in _by_path(optimizer, variables):
        if path in state or not partial:
            variable.assign(state[path])


def _by_path(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Layers of the same name within two inner models give variables of the same path: the second ends in `#2`."""
    places = {f"{variable.path.replace('/', '_')}_": f"{place}_" for place, variable in enumerate(variables)}
    seen: Counter[str] = Counter()
    for variable in optimizer.variables:
        # Keras calls the state of `conv/kernel` `optimizer/conv_kernel_momentum`.
        folder, _, name = variable.path.rpartition("/")
        of = max(filter(name.startswith, places), key=len, default="")
        path = f"{folder}/{places.get(of, '')}{name.removeprefix(of)}"
        seen[path] += 1
        yield (path if seen[path] == 1 else f"{path}#{seen[path]}"), variable


OPTIMIZERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "sgd-momentum": lambda rate, **options: keras.optimizers.SGD(rate, momentum=0.9, **options),
        "sgd": keras.optimizers.SGD,
        "adam": keras.optimizers.Adam,
    }
)
"""Name → factory from a learning rate (a number or a schedule) and the options that all of Keras's optimizers share."""


def make_optimizer(
    name: str,
    learning_rate: Any,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    accumulate: int = 1,
) -> keras.optimizers.Optimizer:
    """Make a fresh optimizer.

    Args:
        name: a key of `OPTIMIZERS`.
        learning_rate: a number, or a `LearningRateSchedule`.
        weight_decay: decoupled weight decay; see `build_optimizer` for what it pulls on.
        clip_norm: the most that the norm of all gradients together may be.
        accumulate: steps whose gradients are averaged before the weights move.

    Raises:
        UserError: the name is unknown.

    Example:
        >>> make_optimizer("sgd-momentum", 0.001).momentum
        0.9
    """
    require_optimizer(name)
    return OPTIMIZERS[name](
        learning_rate,
        weight_decay=weight_decay or None,
        global_clipnorm=clip_norm,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
        name="optimizer",  # a name of our own, so that its variables' paths are the same in every process
    )


def build_optimizer(optimizer: keras.optimizers.Optimizer, variables: Iterable[Any]) -> None:
    """Make the optimizer's variables; weight decay pulls on kernels alone.

    Biases, the scales and offsets of batch norms, and ranges have one axis or none; to pull them to zero would change
    what the network computes, not how large its weights are.
    """
    variables = list(variables)
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])  # noqa: PLR2004
    optimizer.build(variables)


_WARM_UP = 0.1


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


def _check_at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"`{name}` must be at least 1. Received: {name}={count}. Give a positive integer.")

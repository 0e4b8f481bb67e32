"""Optimizers and their state, and learning-rate schedules.

This module registers `PiecewiseWithWarmup` with Keras, so it is imported together with Keras. The names of optimizers
and the parsing of schedules are in `keras_qat.training.recipe`, which doesn't import Keras.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras

from keras_qat.errors import require_whole
from keras_qat.training import recipe

OPTIMIZERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "sgd-momentum": lambda rate, **options: keras.optimizers.SGD(rate, momentum=0.9, **options),
        "sgd": keras.optimizers.SGD,
        "adam": keras.optimizers.Adam,
    }
)
"""Name → factory, called with a learning rate (a number or a schedule) and options that all Keras optimizers share."""

_WARM_UP = 0.1  # share of all steps, of the schedule "warmup-cosine"
_NAMED_PIECES = {"piecewise": recipe.DEFAULT_PIECES, "constant": ((1.0, 0.0),)}


def make_optimizer(
    name: str,
    learning_rate: Any,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    accumulate: int = 1,
) -> keras.optimizers.Optimizer:
    """Make a new optimizer.

    Args:
        name: a key of `OPTIMIZERS`.
        learning_rate: a number, or a `LearningRateSchedule`.
        weight_decay: decoupled weight decay; `build_optimizer` limits it to kernels.
        clip_norm: upper limit of the global norm of all gradients; `None` doesn't clip.
        accumulate: number of steps whose gradients are averaged before the weights are updated.

    Returns:
        The optimizer, not yet built.

    Raises:
        UserError: If no optimizer has this name.

    Example:
        >>> make_optimizer("sgd-momentum", 0.001).momentum
        0.9
    """
    recipe.require_optimizer(name)
    return OPTIMIZERS[name](
        learning_rate,
        weight_decay=weight_decay or None,
        global_clipnorm=clip_norm,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
        name="optimizer",  # a fixed name, so that the paths of its variables are the same in every process
    )


def build_optimizer(optimizer: keras.optimizers.Optimizer, variables: Iterable[Any]) -> None:
    """Create the optimizer's variables, and apply its weight decay to kernels only.

    Biases, ranges, and the scales and offsets of batch norms have at most one axis. Pulling them to zero would change
    what the network computes, not how large its weights are.
    """
    variables = list(variables)
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])  # noqa: PLR2004
    optimizer.build(variables)


def dump_optimizer(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any] = ()) -> dict[str, Any]:
    """Return the state of a built optimizer.

    Args:
        optimizer: the optimizer.
        variables: the model's variables. The position of a variable in this list replaces its path in the names,
            because layers without a given name have another path in the next process.

    Returns:
        Path of each optimizer variable → its value as a NumPy array.
    """
    return {path: keras.ops.convert_to_numpy(variable) for path, variable in _by_path(optimizer, variables)}


def load_optimizer(
    optimizer: keras.optimizers.Optimizer,
    state: dict[str, Any],
    variables: Sequence[Any] = (),
    *,
    partial: bool = False,
) -> None:
    """Load a state into a built optimizer, in place; entries for variables that it doesn't train are ignored.

    Args:
        optimizer: the optimizer to change.
        state: the result of `dump_optimizer`.
        variables: the model's variables, in the same order as for `dump_optimizer`.
        partial: leave optimizer variables that the state lacks as they are.

    Raises:
        KeyError: If the state lacks a variable and `partial` is false.
    """
    for path, variable in _by_path(optimizer, variables):
        if path in state or not partial:
            variable.assign(state[path])


def _by_path(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Yield each optimizer variable with its path, made unique.

    Layers of the same name in two inner models give variables of the same path: the second path ends in `#2`.
    """
    positions = {f"{variable.path.replace('/', '_')}_": f"{index}_" for index, variable in enumerate(variables)}
    seen: Counter[str] = Counter()
    for variable in optimizer.variables:
        # Keras calls the state of `conv/kernel` `optimizer/conv_kernel_momentum`.
        folder, _, name = variable.path.rpartition("/")
        prefix = max(filter(name.startswith, positions), key=len, default="")
        path = f"{folder}/{positions.get(prefix, '')}{name.removeprefix(prefix)}"
        seen[path] += 1
        yield (path if seen[path] == 1 else f"{path}#{seen[path]}"), variable


def make_schedule(
    name_or_pieces: str | Sequence[Sequence[float]],
    learning_rate: float,
    steps_per_epoch: int,
    epochs: int,
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Make the learning-rate schedule of a whole run.

    Args:
        name_or_pieces: one of

            - `"cosine"`: decays to 0 at the end of the last epoch;
            - `"warmup-cosine"`: rises linearly over the first tenth of all steps, then decays likewise;
            - `"piecewise"`: the pieces `DEFAULT_PIECES`;
            - `"constant"`;
            - text that `parse_schedule` reads, such as `"1.0@1,0.1@2"`;
            - (multiplier, start epoch) pieces.
        learning_rate: the rate that multipliers refer to, above 0.
        steps_per_epoch: number of steps in one epoch.
        epochs: number of epochs in the run; only the cosine schedules use it.

    Returns:
        The schedule, from the step (an integer from 0) to the rate.

    Raises:
        UserError: If the text isn't a schedule, the pieces are invalid, `learning_rate` isn't a finite number above 0,
            or `steps_per_epoch` or `epochs` is below 1.

    Example:
        >>> schedule = make_schedule("cosine", 0.1, steps_per_epoch=10, epochs=2)
        >>> [round(float(schedule(step)), 3) for step in (0, 10, 20)]
        [0.1, 0.05, 0.0]
    """
    recipe.check_learning_rate(learning_rate)
    _check_at_least_one(steps_per_epoch=steps_per_epoch, epochs=epochs)
    parsed = recipe.parse_schedule(name_or_pieces) if isinstance(name_or_pieces, str) else name_or_pieces
    total = steps_per_epoch * epochs
    if parsed == "cosine":
        return keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=total)
    if parsed == "warmup-cosine":
        warm_up = max(round(_WARM_UP * total), 1)
        return keras.optimizers.schedules.CosineDecay(
            learning_rate / (warm_up + 1),  # above 0, at which the first step would be wasted
            decay_steps=max(total - warm_up, 1),
            warmup_target=learning_rate,
            warmup_steps=warm_up,
        )
    pieces = _NAMED_PIECES[parsed] if isinstance(parsed, str) else parsed
    return PiecewiseWithWarmup(learning_rate, steps_per_epoch, pieces)


@keras.saving.register_keras_serializable(package="keras_qat")
class PiecewiseWithWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then a constant rate per piece.

    With e = step / steps_per_epoch (a fraction), pieces (m₀, e₀), (m₁, e₁), … and the rate η:

        η(e) = η · m₀ · e / e₀      for e < e₀
        η(e) = η · mᵢ               for eᵢ ≤ e < eᵢ₊₁

    This is `learning_rate_schedule` of TensorFlow's official ResNet
    (https://github.com/tensorflow/models, `official/vision/image_classification/resnet/common.py`), after
    Goyal et al., "Accurate, Large Minibatch SGD", 2017 (https://arxiv.org/abs/1706.02677). A first piece that
    starts at epoch 0 has no warm-up.

    Args:
        initial_learning_rate: η, above 0.
        steps_per_epoch: number of steps in one epoch, at least 1.
        pieces: (multiplier, start epoch) pairs with ascending start epochs.

    Raises:
        UserError: If `initial_learning_rate` isn't a finite number above 0, `steps_per_epoch` is below 1, a multiplier
            isn't above 0, or the start epochs don't ascend.

    Example:
        >>> schedule = PiecewiseWithWarmup(0.5, steps_per_epoch=10, pieces=[(1.0, 1), (0.1, 2)])
        >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 19, 20)]
        [0.0, 0.25, 0.5, 0.5, 0.05]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        steps_per_epoch: int,
        pieces: Sequence[Sequence[float]] = recipe.DEFAULT_PIECES,
    ) -> None:
        super().__init__()
        recipe.check_learning_rate(initial_learning_rate)
        _check_at_least_one(steps_per_epoch=steps_per_epoch)
        self.initial_learning_rate = float(initial_learning_rate)
        self.steps_per_epoch = int(steps_per_epoch)
        self.pieces = recipe.check_pieces(pieces)

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
        """Return the arguments in a form that JSON can hold."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "steps_per_epoch": self.steps_per_epoch,
            "pieces": [list(piece) for piece in self.pieces],
        }


def _check_at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        require_whole(name, count)

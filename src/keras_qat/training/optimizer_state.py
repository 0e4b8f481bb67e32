"""An optimizer's state, for a checkpoint and for the optimizer that takes over when something freezes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import keras


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

"""The outputs of a model that trains, as read, and what the user asks of them: by name, by order, or by one for all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_qat.errors import UserError
from keras_qat.graph import Trace, require_finite, trace
from keras_qat.types import OutputTask


@dataclass(frozen=True)
class Wishes:
    """What the user asks of the outputs.

    Args:
        tasks: a task for each output; read from the model and the labels if `None`.
        loss: a loss for all outputs, or one for each in a list or a dictionary.
        metrics: metrics likewise.
    """

    tasks: tuple[OutputTask, ...] | None = None
    loss: Any = None
    metrics: Any = None


@dataclass(frozen=True)
class Outputs:
    """The outputs of the model that trains, and of its teacher, as read.

    Args:
        model: the trace of the model.
        teacher: the trace of the teacher; that of the model without one.
        positions: names by which labels, losses and metrics may name an output → its position in flattened order.
    """

    model: Trace
    teacher: Trace
    positions: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the outputs, in flattened order."""
        return self.model.graph.outputs

    def by_output(self, given: Any, what: str) -> list[Any]:
        """Return something that is given by output, in flattened order; `None` where an output has nothing.

        Args:
            given: a dictionary by the outputs' names, or a list or tuple of one for each output.
            what: how a message names it, for example "labels".

        Raises:
            UserError: If a name is unknown, or a list has another length.
        """
        if isinstance(given, Mapping):
            unknown = [name for name in given if name not in self.positions]
            if unknown:
                raise UserError(
                    f"The {what} name an output that the model doesn't have. Received: "
                    f"{', '.join(map(repr, unknown))}. The outputs are {self._listed}."
                )
            found: list[Any] = [None] * len(self.names)
            for name, value in given.items():
                found[self.positions[name]] = value
            return found
        if len(given) != len(self.names):
            raise UserError(
                f"The {what} must be given for each of the {len(self.names)} outputs. Received: {len(given)}. Give "
                f"them as a tuple in the order {self._listed}, or as a dictionary by these names."
            )
        return list(given)

    @property
    def _listed(self) -> str:
        return ", ".join(map(repr, self.names))

    def labels(self, y: Any) -> list[Any]:
        """Return the labels of a batch by output; `None` where an output has none.

        One array for several outputs counts as missing labels, -1 for each image.

        Raises:
            UserError: If the labels are of unknown outputs, or of more or fewer than the model has.
        """
        several = len(self.names) > 1
        one_array = isinstance(y, list | tuple) and len(y) == 1 and (y[0] is None or bool(getattr(y[0], "shape", ())))
        if isinstance(y, Mapping) or one_array or (several and isinstance(y, list | tuple)):
            return self.by_output(y, "labels")
        return [None] * len(self.names) if several or y is None else [y]


def read_model_outputs(model: keras.Model, teacher: keras.Model | None, wishes: Wishes) -> Outputs:
    """Read the outputs, and refuse those that no training can change.

    Args:
        model: the model to train.
        teacher: the model to distill from.
        wishes: what the user asks of the outputs.

    Raises:
        UserError: If an output isn't of floating-point numbers, or there are more or fewer tasks than outputs.
        UnsupportedModelError: If a model has no graph.
    """
    traced = trace(model)
    taught = traced if teacher is None else trace(teacher)
    names = traced.graph.outputs
    for name in names:
        if not keras.backend.is_float_dtype(traced.dtype(name)):
            raise UserError(
                f"The output {name!r} can't be trained, since it has no gradient. Received: numbers of type "
                f"{traced.dtype(name)}. Train the model without the layer or operation that makes them, such as an "
                "argmax, and put that behind the trained model."
            )
    if wishes.tasks is not None and len(wishes.tasks) != len(names):
        raise UserError(
            f"`tasks` must hold a task for each of the {len(names)} outputs. Received: {len(wishes.tasks)}. The "
            f"outputs are {', '.join(map(repr, names))}."
        )
    # The float model, the quantized one and Keras may each name an output in its own way.
    keys = sorted(traced.outputs) if isinstance(traced.outputs, Mapping) else ()
    tasks = [task.output for task in wishes.tasks or ()]
    positions: dict[str, int] = {}
    for named in (names, taught.graph.outputs, keys, getattr(model, "output_names", ()), tasks):
        for position, name in enumerate(named):
            positions.setdefault(str(name), position)
    return Outputs(traced, taught, positions)


def finite_outputs(model: keras.Model, x: Any, what: str) -> list[np.ndarray]:
    """Return a model's outputs for a few images.

    Args:
        model: the model.
        x: its inputs.
        what: how a message names the model, for example "teacher".

    Raises:
        UserError: If an output isn't finite.
        WeightsError: If that is since a weight is NaN or infinite.
    """
    outputs = [np.asarray(keras.ops.convert_to_numpy(y)) for y in keras.tree.flatten(model(x, training=False))]
    if not all(np.isfinite(array.astype("float32")).all() for array in outputs):
        require_finite(model)
        raise UserError(
            f"The {what} gives numbers that aren't finite. Received: finite weights. Check its ranges, and that the "
            "images are finite."
        )
    return outputs


def own_losses(outputs: Outputs, loss: Any) -> list[Any]:
    """The user's loss of each output; `None` for that of the task."""
    if isinstance(loss, Mapping | list | tuple):
        given = outputs.by_output(loss, "losses")
    else:
        given = [loss] * len(outputs.names)
    try:
        for one in given:
            keras.losses.get(one)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"`loss` must be a loss of Keras, its name or a function of (labels, outputs). Received: {loss!r}. Give "
            "one for all outputs, or a list or dictionary by output."
        ) from error
    return given


def own_metrics(outputs: Outputs, metrics: Any) -> list[tuple[Any, ...]]:
    """The user's metrics of each output."""
    if metrics is None:
        return [()] * len(outputs.names)
    if len(outputs.names) == 1 and not isinstance(metrics, Mapping):
        return [_several(metrics)]
    given = metrics if isinstance(metrics, Mapping | list | tuple) else [metrics]
    return [_several(one) for one in outputs.by_output(given, "metrics")]


def _several(metrics: Any) -> tuple[Any, ...]:
    if metrics is None:
        return ()
    return tuple(metrics) if isinstance(metrics, list | tuple) else (metrics,)

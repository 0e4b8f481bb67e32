"""Functional model → its calls, flat: nested models and composite layers are read through.

A call of a nested model becomes the calls inside it, once for each time the model is called, so a tensor here is not a
Keras tensor (the same one stands for every call of the model) but a `Value`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph.composites import find_expansion


@dataclass(frozen=True, eq=False)
class FlatCall:
    """One call of an operation that is no model.

    Args:
        operation: the layer (or `keras.ops` operation); a model's input is the call of its InputLayer.
        args: positional arguments, with a `Value` for each tensor.
        kwargs: keyword arguments, likewise.
        inputs: the tensors among them, in the order in which Keras lists them.
        output_shapes: the shape of each output in the Keras layout, `None` for the batch axis.
        prefix: names of the models around the call, each with a `_` after it.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: tuple["Value", ...]
    output_shapes: tuple[tuple[int | None, ...], ...]
    prefix: str


@dataclass(frozen=True)
class Value:
    """One output of a call.

    Args:
        call: what makes it.
        index: which of its outputs.
    """

    call: FlatCall
    index: int


Scope = dict[int, Value]
"""The value that each Keras tensor, by `id`, has in one call of a model."""


def flatten(model: Any) -> Scope:
    """Read a Functional or Sequential model.

    Args:
        model: a built `keras.Model`. It is not changed.

    Returns:
        The value of each Keras tensor of the model.

    Raises:
        UnsupportedModelError: the model, or one inside it, is subclassed, or a Sequential that was never built.
    """
    functional = functional_of(model)
    scope = {
        id(tensor): Value(FlatCall(tensor._keras_history.operation, (), {}, (), (tuple(tensor.shape),), ""), 0)  # noqa: SLF001
        for tensor in functional.inputs
    }
    _Flattener().read(functional, scope, prefix="")
    return scope


def functional_of(model: Any) -> Any:
    """The Functional model behind `model`; raises as `flatten` does."""
    if isinstance(model, keras.Sequential):
        if not model.built or model._functional is None:  # noqa: SLF001
            raise UnsupportedModelError(
                f"The Sequential model {model.name!r} has no input shape yet. Received: an unbuilt model. "
                "Give it a `keras.Input` as its first layer, or call `model.build(input_shape)`."
            )
        return model._functional  # noqa: SLF001
    if not hasattr(model, "_nodes_by_depth"):
        raise UnsupportedModelError(
            "Only Functional and Sequential models have a graph to quantize. "
            f"Received: {type(model).__name__} (model {getattr(model, 'name', model)!r}), whose forward pass is "
            "Python code. Rebuild it with the functional API: `x = keras.Input(shape); "
            "keras.Model(x, your_layers(x))`."
        )
    return model


def _given(node: Any, inner: Any) -> list[Any]:
    """What a call of a model gives for each of `inner.inputs`: in a dictionary by key, or by the name of the input."""
    arguments = (*node.arguments.args, *node.arguments.kwargs.values())
    wanted = inner._inputs_struct  # noqa: SLF001
    if not isinstance(arguments[0], dict):
        return list(node.arguments.keras_tensors)
    if isinstance(wanted, dict):
        return list(keras.tree.flatten({key: arguments[0][key] for key in wanted}))
    return [arguments[0][tensor.name] for tensor in inner.inputs]


class _Flattener:
    """Walks a model and the models inside it; remembers the model that stands for a composite layer."""

    def __init__(self) -> None:
        self._expanded: dict[int, Any] = {}

    def read(self, functional: Any, scope: Scope, prefix: str) -> None:
        """Complete `scope`, which holds the values of the model's inputs."""
        by_depth = functional._nodes_by_depth  # noqa: SLF001
        for node in (node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]):
            if node.is_input or all(id(tensor) in scope for tensor in node.outputs):
                continue
            operation, tensors = node.operation, node.arguments.keras_tensors
            nested = operation if isinstance(operation, keras.Model) else self._expand(operation, tensors)
            if nested is not None:
                self._read_nested(nested, node, scope, prefix)
                continue
            args, kwargs = node.arguments.convert(lambda x: scope[id(x)] if isinstance(x, keras.KerasTensor) else x)
            inputs = tuple(scope[id(tensor)] for tensor in tensors)
            call = FlatCall(operation, args, kwargs, inputs, tuple(tuple(t.shape) for t in node.outputs), prefix)
            scope.update({id(tensor): Value(call, i) for i, tensor in enumerate(node.outputs)})

    def _read_nested(self, model: Any, node: Any, scope: Scope, prefix: str) -> None:
        inner = functional_of(model)
        inside = {id(t): scope[id(o)] for t, o in zip(inner.inputs, _given(node, inner), strict=True)}
        self.read(inner, inside, prefix=f"{prefix}{model.name}_")
        scope.update({id(made): inside[id(t)] for made, t in zip(node.outputs, inner.outputs, strict=True)})

    def _expand(self, operation: Any, tensors: list[Any]) -> Any:
        """The model that a composite layer stands for, one for all its calls; `None` for any other layer."""
        expand = find_expansion(operation)
        if expand is None:
            return None
        if id(operation) not in self._expanded:
            self._expanded[id(operation)] = expand(operation, [tuple(t.shape) for t in tensors])
        return self._expanded[id(operation)]

"""Reading the calls of a model: nested models, composites and layers that nobody registered are replaced by theirs.

Every model is followed with new symbolic tensors, from its inputs on, so that shapes and types are those of the call: a
backbone for images of any size, called on 224 x 224, has 224 x 224. A call is one of four things:

- of a nested Functional or Sequential model: its calls are read, once for each call of the model;
- of a composite (`kinds.py`): the calls of the small model that it stands for are read;
- of a layer of a known type, or of an operation of `keras.ops`: it becomes a `FlatCall`, that of an operation on a
  stored kernel one of the layer that does the same (`weighted.py`);
- of any other layer: its `call` is run on symbolic tensors and the calls that it makes are read (`capture.py`).
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras.src.models.functional import Functional  # has no public name
from keras.src.ops import core, numpy

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import attention as _attention  # noqa: F401  (importing registers its composites)
from keras_qat.graph.calls import FlatCall, Value
from keras_qat.graph.capture import (
    Captured,
    Recorded,
    UnreadableError,
    capture,
    names_of_parts,
    recorded,
    symbols_of,
)
from keras_qat.graph.kinds import find_expansion, is_known
from keras_qat.graph.open_batch import IMAGES, capture_for_any_batch, first_sizes
from keras_qat.graph.proof import PROOF_IMAGES, require_the_same
from keras_qat.graph.weighted import settings_of, stored_kernel, weighted_layer

_PASS_ON = (core.ConvertToTensor, core.Cast, core.StopGradient)
"""Operations that change nothing for inference if the type of the tensor stays."""

_RUN = ("__call__", "call", "_run_through_graph", "_standardize_inputs")
"""The methods that define what a model with a graph computes."""


@dataclass(frozen=True)
class Flat:
    """The calls of a model, as the values of its inputs and outputs.

    Args:
        inputs: the structure of the model's inputs, with a `Value` for each tensor.
        outputs: the structure of its outputs, likewise.
    """

    inputs: Any
    outputs: Any


@dataclass(frozen=True)
class _Place:
    """Where a call stands.

    Args:
        name: (operation) → the name that its call would get.
        prefix: as in `FlatCall`.
        path: as in `FlatCall`.
        read_through: whether the call is made in the `call` of a layer that is read, or of a model that it calls.
        in_code: whether it is made by the code of that `call`, not by the graph of a model.
        any_batch: whether that is read for any number of images by `open_batch.py`.
    """

    name: Callable[[Any], str] = lambda operation: str(operation.name)
    prefix: str = ""
    path: tuple[str, ...] = ()
    read_through: bool = False
    in_code: bool = False
    any_batch: bool = False


def has_graph(model: Any) -> bool:
    """Whether a model computes what its graph of layers says.

    That is a Functional or Sequential model, or a subclass that changes nothing of the forward pass.

    Example:
        >>> has_graph(keras.Sequential()), has_graph(keras.layers.ReLU())
        (True, False)
    """
    kind: Any = next((kind for kind in (keras.Sequential, Functional) if isinstance(model, kind)), None)
    return kind is not None and all(getattr(type(model), name, None) is getattr(kind, name, None) for name in _RUN)


def graph_of(model: Any) -> Any:
    """The Functional model behind a model for which `has_graph` holds.

    Raises:
        UnsupportedModelError: If it is a Sequential model that was never built.
    """
    if not isinstance(model, keras.Sequential):
        return model
    if not model.built or model._functional is None:  # noqa: SLF001
        raise UnsupportedModelError(
            f"The Sequential model {model.name!r} has no input shape yet. Received: an unbuilt model. "
            "Give it a `keras.Input` as its first layer, or call `model.build(input_shape)`."
        )
    return model._functional  # noqa: SLF001


def flatten(model: Any) -> Flat:
    """Read the calls of a model.

    Args:
        model: a model with inputs: Functional, Sequential, or a subclass of one with a `call` of its own. It is not
            changed.

    Returns:
        The values of its inputs and outputs, from which `calls_in_order` finds the calls.

    Raises:
        UnsupportedModelError: If a layer reads a mask, or is called with `training=True` by the `call` of another, or a
            nested Sequential was never built.
    """
    reader = _Reader()
    functional = graph_of(model) if isinstance(model, keras.Sequential) else model
    given = keras.tree.map_structure(reader.new_input, functional._inputs_struct)  # noqa: SLF001
    if has_graph(model):
        made = reader.follow(functional, keras.tree.flatten(given), _Place())
        outputs = keras.tree.pack_sequence_as(functional._outputs_struct, made)  # noqa: SLF001
    else:
        unpacked = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
        outputs = reader.read(model, (unpacked,), {}, _Place(name=lambda _: model.name), top=True)
    if not all(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten(outputs)):
        raise UnsupportedModelError(
            f"An output of the model {model.name!r} does not depend on its inputs. Received: a constant. Leave it out: "
            "`keras.Model(model.inputs, the_other_outputs)`."
        )
    return Flat(
        inputs=keras.tree.map_structure(reader.value, given), outputs=keras.tree.map_structure(reader.value, outputs)
    )


class _Reader:
    """Follows the calls of a model with new symbolic tensors, and keeps the value of each.

    Each composite layer is expanded once, for all its calls, and one layer stands for all operations on one kernel.
    """

    def __init__(self) -> None:
        self._values: dict[int, Value] = {}
        self._tensors: list[Any] = []  # kept alive, since `_values` knows them by `id`
        self._expanded: dict[int, tuple[Any, Any]] = {}
        self._weighted_layers: dict[tuple[Any, ...], tuple[Any, Any]] = {}
        self._first_sizes: dict[int, dict[Value, int]] = {}

    def value(self, tensor: Any) -> Value:
        """The value of a tensor that this reader made."""
        return self._values[id(tensor)]

    def new_input(self, tensor: Any) -> Any:
        """A new tensor for an input of the model."""
        layer = tensor._keras_history.operation  # noqa: SLF001 - Keras has no public access
        call = FlatCall(layer, (), {}, (), (tuple(tensor.shape),), (str(tensor.dtype),), str(layer.name))
        return self._new_tensors(call)[0]

    def _new_tensors(self, call: FlatCall) -> list[Any]:
        made = [keras.KerasTensor(s, d) for s, d in zip(call.output_shapes, call.output_dtypes, strict=True)]
        self._tensors.extend(made)
        self._values.update({id(tensor): Value(call, index) for index, tensor in enumerate(made)})
        return made

    def follow(self, functional: Any, given: list[Any], place: _Place) -> list[Any]:
        """The outputs of a Functional model for the inputs `given`."""
        tensors = {id(t): g for t, g in zip(functional.inputs, given, strict=True)}
        by_depth = functional._nodes_by_depth  # noqa: SLF001
        nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
        self._follow_nodes(recorded(nodes), tensors, place)
        return [tensors[id(tensor)] for tensor in functional.outputs]

    def _follow_nodes(self, nodes: Iterable[Recorded], tensors: dict[int, Any], place: _Place) -> None:
        """Add the tensor that each node makes to `tensors`, by the `id` of the tensor that the node made before."""
        for node in nodes:
            if all(id(tensor) in tensors for tensor in node.outputs):
                continue
            args, kwargs = keras.tree.map_structure(
                lambda x: tensors[id(x)] if isinstance(x, keras.KerasTensor) else x, (node.args, dict(node.kwargs))
            )
            made = self._visit(node, args, kwargs, place)
            tensors.update(zip(map(id, node.outputs), _without_none(made), strict=True))

    def _visit(self, node: Recorded, args: tuple[Any, ...], kwargs: dict[str, Any], place: _Place) -> Any:
        """The outputs of one call."""
        operation = node.operation
        if not symbols_of((args, kwargs)):  # they were constants that a layer gives beside its tensors
            return operation(*args, **kwargs)
        if isinstance(operation, _PASS_ON) and node.tensors[0].dtype == node.outputs[0].dtype:
            return symbols_of((args, kwargs))[0]
        if isinstance(operation, keras.layers.Layer):
            _require_inference(operation, node, kwargs, place)
            kwargs = {key: x for key, x in kwargs.items() if key != "training" and (key != "mask" or x is not None)}
        nested = self._nested(operation, args, kwargs, place)
        if nested is not None:
            return self.follow(*nested)
        if is_known(operation):
            return self._record(node, args, kwargs, place)
        try:
            return _as_many(self.read(operation, args, kwargs, place), node)
        except UnreadableError as error:
            return self._record(node, args, kwargs, place, unread=str(error))

    def _nested(
        self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], place: _Place
    ) -> tuple[Any, list[Any], _Place] | None:
        """The Functional model to follow instead of a call, its inputs and its place; `None` if there is none."""
        if has_graph(operation):
            inner = graph_of(operation)
            given = _given(inner, args, kwargs)
            if _fits(inner, given):
                return inner, given, _inside(place, operation)
        model = self._expand(operation, args, kwargs)
        if model is None:
            return None
        composite = replace(place, name=_names_of_composite(operation, place.name(operation)))
        return model, symbols_of((args, kwargs)), composite

    def _weighted(self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The layer that stands for an operation on a stored kernel; `None` for any other operation."""
        kernel = stored_kernel(operation, args, kwargs)
        if kernel is None:
            return None
        key = (id(kernel), *settings_of(operation))
        if key not in self._weighted_layers:  # the kernel is kept alive with it
            self._weighted_layers[key] = kernel, weighted_layer(operation, symbols_of((args, kwargs))[0], kernel)
        return self._weighted_layers[key][1]

    def _record(
        self,
        node: Recorded,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: _Place,
        *,
        unread: str | None = None,
    ) -> Any:
        """The outputs of one call of a layer or operation, or of the weighted layer that stands for it."""
        outputs = _output_specs(node, args, kwargs)
        given = symbols_of((args, kwargs))
        operation = node.operation
        if isinstance(operation, numpy.Reshape):
            operation, outputs = _with_sizes(operation, given[0], outputs)
        weighted = self._weighted(node.operation, args, kwargs)
        if weighted is not None:
            args, kwargs = tuple(given), {}
        filled, named = keras.tree.map_structure(
            lambda x: self.value(x) if isinstance(x, keras.KerasTensor) else _constant(x), (args, kwargs)
        )
        call = FlatCall(
            weighted or operation,
            filled,
            named,
            inputs=tuple(map(self.value, given)),
            output_shapes=tuple(tuple(t.shape) for t in outputs),
            output_dtypes=tuple(str(t.dtype) for t in outputs),
            name=place.name(node.operation),
            prefix=place.prefix,
            path=place.path,
            unread=unread,
        )
        return self._new_tensors(call)

    def _expand(self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The model that a composite layer stands for; `None` for any other layer."""
        expand = find_expansion(operation)
        if expand is None:
            return None
        if id(operation) not in self._expanded:
            shapes = [tuple(tensor.shape) for tensor in symbols_of((args, kwargs))]
            named = () if isinstance(operation, keras.layers.Layer) else (_by_name(operation, args, kwargs),)
            # The operation is kept alive: that of a reading that fails would leave its `id` to another.
            self._expanded[id(operation)] = operation, expand(operation, shapes, *named)
        return self._expanded[id(operation)][1]

    def read(
        self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], place: _Place, *, top: bool = False
    ) -> Any:
        """The outputs of a layer, from the calls that its `call` makes.

        Raises:
            UnreadableError: If its `call` can't run on symbolic tensors.
        """
        if not place.any_batch:
            try:
                return self._read(layer, capture(layer, args, kwargs), args, kwargs, place, top=top)
            except UnreadableError as error:
                if not any(tensor.shape[:1] == (None,) for tensor in symbols_of((args, kwargs))):
                    raise
                first = error
            try:
                return self.read(layer, args, kwargs, replace(place, any_batch=True), top=top)
            except UnreadableError as error:
                raise first if str(error) in str(first) else UnreadableError(f"{first}; and {error}") from error
        sizes = [self._sizes((args, kwargs), images) for images in IMAGES]
        captured = capture_for_any_batch(layer, args, kwargs, sizes)
        return self._read(layer, captured, args, kwargs, place, top=top)

    def _sizes(self, arguments: Any, images: int) -> list[int]:
        """The first size of each tensor among the arguments of a call, for a number of images."""
        values = [self.value(tensor) for tensor in symbols_of(arguments)]
        return first_sizes(values, images, self._first_sizes.setdefault(images, {}))

    def _read(
        self,
        layer: Any,
        captured: Captured,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: _Place,
        *,
        top: bool,
    ) -> Any:
        """The outputs of a layer, from the calls that were captured of its `call`."""
        given = symbols_of((args, kwargs))
        tensors = dict(zip(map(id, captured.inputs), given, strict=True))
        own_name = place.name(layer)
        inside = _Place(
            name=_names_inside(layer, "" if top else own_name, {id(n.operation) for n in captured.last}),
            prefix=place.prefix,
            path=place.path if top else (*place.path, own_name),
            read_through=True,
            in_code=True,
            any_batch=place.any_batch,
        )
        self._follow_nodes(captured.nodes, tensors, inside)
        outputs = keras.tree.map_structure(lambda t: tensors.get(id(t), t), captured.outputs)
        if not place.read_through:
            made = [self._values.get(id(x), x) for x in _without_none(outputs)]
            for images in PROOF_IMAGES if place.any_batch else PROOF_IMAGES[:1]:
                sizes = self._sizes((args, kwargs), images)
                require_the_same(layer, args, kwargs, sizes, [self.value(t) for t in given], made)
        return outputs


def _as_many(made: Any, node: Recorded) -> Any:
    """What a layer made, if it is as much as Keras recorded of the call.

    Raises:
        UnreadableError: If it is not.
    """
    if len(_without_none(made)) != len(node.outputs):
        raise UnreadableError("its call gives `None` or not by conditions on what it is called with")
    return made


def _without_none(structure: Any) -> list[Any]:
    """The tensors and constants of a structure, in order."""
    return [x for x in keras.tree.flatten(structure) if x is not None]


def _by_name(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
    """The arguments of a call of an operation by the names of its parameters, weights as numbers."""
    bound = inspect.signature(operation.call).bind(*args, **kwargs).arguments
    return {name: _constant(argument) for name, argument in bound.items()}


def _constant(argument: Any) -> Any:
    """A weight as the numbers that it holds; any other argument unchanged."""
    return keras.ops.convert_to_numpy(argument) if isinstance(argument, keras.Variable) else argument


def _output_specs(node: Recorded, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The outputs of a call as symbolic tensors: those of the node, or new ones if the inputs have other shapes."""
    before, given = node.tensors, symbols_of((args, kwargs))
    # There are fewer where a layer gave constants.
    if [(x.shape, x.dtype) for x in before] == [(x.shape, x.dtype) for x in given]:
        return list(node.outputs)
    return list(keras.tree.flatten(node.operation.compute_output_spec(*args, **kwargs)))


def _with_sizes(operation: Any, x: Any, outputs: list[Any]) -> tuple[Any, list[Any]]:
    """A reshape that runs, and its output: only symbolic calls take `None` for the batch, with or without a -1."""
    wanted = tuple(operation.newshape)
    if None not in wanted:
        return operation, outputs
    if wanted[0] is None and None not in (*x.shape[1:], *wanted[1:]):
        rest = math.prod(x.shape[1:]) // math.prod(size for size in wanted[1:] if size != -1)
        wanted = (None, *(rest if size == -1 else size for size in wanted[1:]))
    # Keras copies an operation by the arguments that it was made with, so a changed attribute would be lost.
    runnable = numpy.Reshape(tuple(-1 if size is None else size for size in wanted), name=operation.name)
    return runnable, [keras.KerasTensor(wanted, x.dtype)]


def _require_inference(layer: Any, node: Recorded, kwargs: Mapping[str, Any], place: _Place) -> None:
    """Refuse a call whose result is not what the layer computes at inference from its inputs alone."""
    path = "/".join((*place.path, place.name(layer)))
    # In a functional model Keras replaces the argument by that of `predict`.
    if place.in_code and kwargs.get("training") not in {None, False}:
        raise UnsupportedModelError(
            f"The layer {path!r} is called with training=True, so that it computes otherwise than at inference. "
            f"Received: a {type(layer).__name__}. Pass on the `training` of the layer around it."
        )
    masked = any(getattr(t, "_keras_mask", None) is not None for t in node.tensors)
    if masked and layer._call_has_mask_arg and not isinstance(layer, keras.layers.BatchNormalization):  # noqa: SLF001
        raise UnsupportedModelError(
            f"The layer {path!r} reads a mask, which no quantized model or file has. Received: a "
            f"{type(layer).__name__} behind a Masking, or behind an Embedding with mask_zero=True. Leave the mask out."
        )


def _given(inner: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """The tensors that a call of a model passes for `inner.inputs`; a dictionary goes by key or by input name."""
    argument = args[0] if args else kwargs["inputs"]
    wanted = inner._inputs_struct  # noqa: SLF001
    if not isinstance(argument, dict):
        return symbols_of(argument)
    if isinstance(wanted, dict):
        return list(keras.tree.flatten({key: argument[key] for key in wanted}))
    return [argument[tensor.name] for tensor in inner.inputs]


def _fits(inner: Any, given: list[Any]) -> bool:
    """Whether the tensors are what the model's own calls read; otherwise the model casts or reshapes them before."""
    return len(given) == len(inner.inputs) and all(
        len(t.shape) == len(g.shape) and t.dtype == g.dtype for t, g in zip(inner.inputs, given, strict=True)
    )


def _inside(place: _Place, model: Any) -> _Place:
    """The place of the calls in a nested model."""
    own_name = place.name(model)
    if not place.read_through:
        return replace(place, prefix=f"{place.prefix}{own_name}_", path=(*place.path, own_name))
    name = _names_inside(model, own_name, set())
    return replace(place, name=name, path=(*place.path, own_name), in_code=False)


def _names_of_composite(layer: Any, own_name: str) -> Callable[[Any], str]:
    """Names for the parts of a composite, which mostly begin with the layer's: that name is replaced by `own_name`."""
    before = str(layer.name)

    def name(part: Any) -> str:
        if not isinstance(part, keras.layers.Layer):
            return f"{own_name}_{_snake_case(type(part).__name__)}"
        if own_name == before:
            return str(part.name)
        return own_name + part.name[len(before) :] if part.name.startswith(before) else f"{own_name}_{part.name}"

    return name


def _names_inside(owner: Any, own_name: str, last: set[int]) -> Callable[[Any], str]:
    """Names for what the `call` of a layer calls.

    A sublayer has the name that it was given, or if Keras chose it the name of the attribute that holds it, which is
    the same in every process; an operation has that of its type. The owner's name stands before. The operation that
    makes the owner's output has the owner's name alone.

    Args:
        owner: the layer.
        own_name: its name in the graph; empty for the model itself.
        last: the `id` of each operation that makes an output.
    """
    attributes = names_of_parts(owner)

    def name(operation: Any) -> str:
        given, of_type = str(operation.name), _snake_case(type(operation).__name__)
        if isinstance(operation, keras.layers.Layer):
            automatic = re.fullmatch(rf"{of_type}(_\d+)?", given) is not None
            part = attributes.get(id(operation), of_type) if automatic else given
        elif id(operation) in last and own_name:
            return own_name
        else:
            part = of_type
        return part if not own_name or part.startswith(f"{own_name}_") else f"{own_name}_{part}"

    return name


def _snake_case(name: str) -> str:
    """The form of a class's name in which Keras names layers.

    Example:
        >>> _snake_case("Conv2D"), _snake_case("ReLU")
        ('conv2d', 're_lu')
    """
    return str(keras.src.utils.naming.to_snake_case(name))

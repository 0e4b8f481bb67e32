"""The Keras model that trains another one of any inputs and outputs: `fit` sees their order, not their structure."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.feed import in_order

_ACCURACY = "accuracy"


class Trainer(keras.Model):
    """Trains `student` in place, with its outputs by name.

    A batch is (x, y) or (x, y, sample_weight). x is one array, or several in the order of the student's inputs, or a
    dictionary by their names; y likewise by the student's outputs. With several outputs, `compile` takes losses and
    metrics in dictionaries by the outputs' names.

    Args:
        student: the model to train.
        names: names of its outputs, in flattened order.
        features: names of layers whose outputs are given besides.
        name: name of this model.
    """

    def __init__(
        self, student: keras.Model, names: Sequence[str], features: Sequence[str] = (), name: str = "trainer"
    ) -> None:
        super().__init__(name=name)
        self._names = tuple(names)
        self.student = with_features(student, self._names, features, "model")

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the student's outputs, by the keys of `output_key`, and its features by the names of their layers."""
        return self.student(self.ordered(inputs), training=training)

    def ordered(self, inputs: Any) -> Any:
        """Return the inputs in the student's order: one tensor, or a list of several."""
        tensors = in_order(inputs, self.student)
        return tensors[0] if len(tensors) == 1 else tensors

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the loss of the labels and the layers' own losses (regularizers), a scalar."""
        return super().compute_loss(x, self._by_name(y), self._outputs(y_pred), sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the metrics, which compare the labels with the outputs alone."""
        return super().compute_metrics(x, self._by_name(y), self._outputs(y_pred), sample_weight)

    def get_metrics_result(self) -> dict[str, Any]:
        """Return the metrics by name; the accuracies of several outputs are one, their mean."""
        results = dict(super().get_metrics_result())
        own = [f"{name}_{_ACCURACY}" for name in self._names]
        found = [results.pop(name) for name in own if name in results]
        return {**results, _ACCURACY: sum(found) / len(found)} if found else results

    def _outputs(self, y_pred: Mapping[str, Any]) -> Any:
        """The outputs as Keras compares them with labels: a tensor, or a dictionary of several."""
        outputs = {name: y_pred[output_key(name)] for name in self._names}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def _by_name(self, y: Any) -> Any:
        labels = list(y) if isinstance(y, list | tuple) else y
        if len(self._names) == 1 or not isinstance(labels, list):
            return labels
        return dict(zip(self._names, labels, strict=True))


def output_key(name: str) -> str:
    """Return the key of an output, which is no name of a layer, since these can't hold a slash.

    Example:
        >>> output_key("classes")
        '/classes'
    """
    return f"/{name}"


def with_features(model: keras.Model, outputs: Sequence[str], names: Sequence[str], what: str) -> keras.Model:
    """Return the model with the outputs of some layers besides its own, as a dictionary.

    Args:
        model: the model.
        outputs: names of its outputs, in flattened order.
        names: names of the layers.
        what: how a message names the model, for example "teacher".

    Raises:
        UserError: If a layer is missing, or the model calls it more than once.
    """
    known = {layer.name for layer in model.layers}
    missing = sorted(set(names) - known)
    if missing:
        raise UserError(
            f"The {what} {model.name!r} has no layer for a feature. Received: {', '.join(missing)}. Give names of "
            "layers that both the float and the quantized model have; `model.summary()` lists them."
        )
    own = {output_key(name): tensor for name, tensor in zip(outputs, model.outputs, strict=True)}
    features = {name: _output(model, name, what) for name in names}
    # Keras warns if it is called with a tensor where the model was made with a list of inputs.
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return keras.Model(inputs, {**own, **features}, name=what)


def _output(model: keras.Model, name: str, what: str) -> Any:
    """Return the output of a layer that the model calls once."""
    graph = getattr(model, "_functional", model)  # a Sequential model keeps its graph there
    layer = model.get_layer(name)
    # `layer.output` belongs to the first call in any model, and Keras has no public access to the other calls.
    nodes = (node for level in graph._nodes_by_depth.values() for node in level)  # noqa: SLF001
    calls = [node for node in nodes if node.operation is layer]
    if len(calls) != 1 or len(calls[0].output_tensors) != 1:
        raise UserError(
            f"A feature must be one tensor. Received: {name!r}, a layer that the {what} {model.name!r} calls "
            f"{len(calls)} times. Name a layer that is called once and gives one tensor."
        )
    return calls[0].output_tensors[0]

"""A model that is trained, and the float model that it is to agree with, as one Keras model for `compile` and `fit`."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_qat.errors import UserError
from keras_qat.scores import best_class
from keras_qat.training.cloning import clone, require_graph
from keras_qat.training.features import common_features, with_layers_of
from keras_qat.training.losses import class_probabilities, distillation_loss, feature_loss
from keras_qat.training.recipe import Distillation
from keras_qat.types import TrainingPrecision

_PROBABILITIES = "class probabilities"
"""Among the outputs' names; no layer is called that."""


class Distiller(keras.Model):
    """Trains `student` to give what `teacher` gives; see `Distillation` for the loss.

    Compile it with the loss and the metrics of the labels, and fit it like any model. Its metric `agreement` is the
    share of images to which both give the same class. The student's weights are trained in place; those of the teacher
    aren't touched, a frozen copy is asked.

    Args:
        student: a classifier, `(batch, …) → (batch, classes)` of probabilities, or `(batch, 1)` of a sigmoid's.
        teacher: a classifier of the same inputs and classes.
        distillation: how much, at which temperature, and which features.
        precision: the dtype policy of the copy of the teacher.

    Raises:
        UserError: the inputs or the classes differ, or a feature is a layer that one of them lacks or calls several
            times.
        UnsupportedModelError: one of them has no graph.

    Example:
        >>> import numpy as np
        >>> def make():
        ...     return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
        >>> distiller = Distiller(make(), make(), Distillation())
        >>> distiller.compile("sgd", "sparse_categorical_crossentropy")
        >>> logs = distiller.fit(np.ones((4, 3)), np.zeros(4), verbose=0).history
        >>> sorted(logs)
        ['agreement', 'loss']
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        distillation: Distillation,
        *,
        precision: TrainingPrecision = "float32",
    ) -> None:
        super().__init__(name="distiller")
        require_teacher(student, teacher)
        self.distillation = distillation
        teacher = with_layers_of(teacher, student)
        names = distillation.features
        self._features = common_features(teacher, student) if names == "auto" else names
        self.student = _with_features(student, self._features, "model")
        self.teacher = _with_features(clone(teacher, precision=precision), self._features, "teacher")
        self.teacher.trainable = False
        self.agreement = keras.metrics.Mean("agreement")

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, *arguments: Any, **options: Any) -> None:
        """As of any model; the loss of the labels is left out where the teacher alone teaches.

        A loss that is never computed is never built, and JAX's `train_on_batch` would trace the model at every step to
        build it.
        """
        super().compile(optimizer, None if self.distillation.weight == 1 else loss, *arguments, **options)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The student's outputs by name: the probabilities, and the features."""
        return self.student(inputs, training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The weighted sum of both losses, and of the layers' own, such as a regularizer's; a scalar."""
        d = self.distillation
        taught = {name: ops.stop_gradient(output) for name, output in self.teacher(x, training=False).items()}
        t, p = taught[_PROBABILITIES], y_pred[_PROBABILITIES]
        loss = d.weight * distillation_loss(t, p, d.temperature)
        for name in self._features:
            loss = loss + d.weight * d.feature_weight * feature_loss(taught[name], y_pred[name])
        best_t, best_p = (best_class(class_probabilities(outputs), "classes") for outputs in (t, p))
        same = ops.equal(best_t, best_p)
        self.agreement.update_state(ops.cast(same, "float32"))
        own = sum((ops.sum(ops.cast(term, "float32")) for term in self.losses), 0.0)
        # Keras adds the layers' own losses to that of the labels; they count once, whatever the weight.
        loss = (loss + d.weight * own) / _replicas()
        if d.weight == 1:
            return loss
        labels = super().compute_loss(x, y, p, sample_weight, training)
        return loss + (1 - d.weight) * labels

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The metrics of the labels, of the probabilities alone."""
        return super().compute_metrics(x, y, y_pred[_PROBABILITIES], sample_weight)


def require_teacher(student: keras.Model, teacher: keras.Model) -> None:
    """Refuse a teacher of other images or other classes.

    Raises:
        UserError: the shapes differ.
        UnsupportedModelError: one of them has no graph.
    """
    for model in (student, teacher):
        require_graph(model)
    for what, theirs, own in (
        ("inputs", teacher.input_shape, student.input_shape),
        ("classes", teacher.output_shape, student.output_shape),
    ):
        if not _alike(theirs, own):
            raise UserError(
                f"A teacher must have the {what} of the model that it teaches. Received: {theirs} and {own}. "
                "Give the float model that was quantized."
            )


def _replicas() -> int:
    """How many devices add up their gradients: each one's loss is its share, as Keras's own losses are."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def _alike(left: Any, right: Any) -> bool:
    """Whether two shapes are equal; a size that isn't fixed equals any."""
    if isinstance(left, tuple | list) and isinstance(right, tuple | list):
        return len(left) == len(right) and all(map(_alike, left, right))
    return left is None or right is None or bool(left == right)


def _output(model: keras.Model, name: str, what: str) -> Any:
    graph = getattr(model, "_functional", model)  # a Sequential model keeps its graph there
    layer = model.get_layer(name)
    # `layer.output` is the first call's, whatever the model, and Keras has no public way to the others.
    nodes = (node for level in graph._nodes_by_depth.values() for node in level)  # noqa: SLF001
    calls = [node for node in nodes if node.operation is layer]
    if len(calls) != 1 or len(calls[0].output_tensors) != 1:
        raise UserError(
            f"A feature must be one tensor. Received: {name!r}, a layer that the {what} {model.name!r} calls "
            f"{len(calls)} times. Name a layer that is called once and gives one tensor."
        )
    return calls[0].output_tensors[0]


def _with_features(model: keras.Model, names: Sequence[str], what: str) -> keras.Model:
    known = {layer.name for layer in model.layers}
    missing = sorted(set(names) - known)
    if missing:
        raise UserError(
            f"The {what} {model.name!r} has no layer for a feature. Received: {', '.join(missing)}. Give names of "
            "layers that both the float and the quantized model have; `model.summary()` lists them."
        )
    features = {name: _output(model, name, what) for name in names}
    # Keras warns where it gets the images themselves and a list of them was announced.
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return keras.Model(inputs, {_PROBABILITIES: model.outputs[0], **features}, name=what)

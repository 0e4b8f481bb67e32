"""The terms of a training's loss, of class probabilities.

    labels        -Σ_c ỹ_c log p_c,   ỹ = (1 - ε) · onehot(y) + ε / C
    distillation  T² · KL(softmax(log t / T) ‖ softmax(log p / T))
    features      ‖t - s‖² / ‖t‖²

with t the teacher's and p (or s) the student's outputs, C classes, ε the label smoothing, T the temperature. T² keeps
the gradient at the size it has at T = 1 (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2). The
logarithm of a softmax is its logits up to a constant, which the next softmax doesn't see. A single score, a sigmoid's
p, stands for the probabilities 1 - p and p: the first term is then binary cross-entropy, the second that of Bernoulli.

Which layers' outputs a student is to share with its teacher, where the recipe names none.

Layer by layer, an image has thousands of numbers to learn from, its class probabilities one or two; so a few hundred
images are enough to settle the weights (as block-wise reconstruction has it: Li et al. 2021,
https://arxiv.org/abs/2102.05426). The natural places are where the branches of a network join, behind the activation:
what went wrong in a block is seen there as a whole. A network without branches is compared at each kernel's activation.

A model that is trained, and the float model that it is to agree with, as one Keras model for `compile` and `fit`.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import keras
from keras import ops

from keras_qat.errors import UserError
from keras_qat.graph import Graph, Node, best_class, per_class, trace
from keras_qat.training.cloning import clone, require_graph
from keras_qat.training.recipe import Distillation
from keras_qat.transform import copy_layer, rebuild
from keras_qat.types import OpKind, TrainingPrecision

_SMALLEST = 1e-30
"""Stands for a probability that underflows, or that an engine's rounding made zero."""


def labels_loss(labels: Any, probabilities: Any, smoothing: float = 0.0) -> Any:
    """Cross-entropy with the labels, smoothed.

    Args:
        labels: int, shape (batch,).
        probabilities: float, shape (batch, classes), or (batch, 1) for a single score.
        smoothing: ε.

    Returns:
        float32, shape (batch,).
    """
    log_p = _log(probabilities)
    classes = log_p.shape[-1]
    target = ops.one_hot(ops.cast(ops.reshape(labels, (-1,)), "int32"), classes, dtype="float32")
    target = (1 - smoothing) * target + smoothing / classes
    return -ops.sum(target * log_p, axis=-1)


def distillation_loss(teacher: Any, student: Any, temperature: float = 1.0) -> Any:
    """Kullback-Leibler divergence of the student's probabilities from the teacher's, at a temperature.

    Args:
        teacher: float, shape (batch, classes), or (batch, 1) for a single score.
        student: float, that shape.
        temperature: T.

    Returns:
        A float32 scalar, 0 or more: the mean over the images.

    Example:
        >>> from keras import ops
        >>> float(distillation_loss(ops.array([[0.5, 0.5]]), ops.array([[0.5, 0.5]])))
        0.0
    """
    log_t = ops.log_softmax(_log(teacher) / temperature, axis=-1)
    log_p = ops.log_softmax(_log(student) / temperature, axis=-1)
    return temperature**2 * ops.mean(ops.sum(ops.exp(log_t) * (log_t - log_p), axis=-1))


def feature_loss(teacher: Any, student: Any) -> Any:
    """Squared distance of two tensors of one layer, relative to the teacher's.

    Args:
        teacher: float, any shape.
        student: float, that shape.

    Returns:
        A float32 scalar, of the whole batch.
    """
    t, s = ops.cast(teacher, "float32"), ops.cast(student, "float32")
    return ops.sum(ops.square(t - s)) / (ops.sum(ops.square(t)) + _SMALLEST)


def class_probabilities(outputs: Any) -> Any:
    """One probability for each class, of a classifier's outputs.

    Args:
        outputs: float, shape (batch, classes), or (batch, 1) for a single score.

    Returns:
        float32, shape (batch, classes), at least two.

    Example:
        >>> from keras import ops
        >>> class_probabilities(ops.array([[0.25]])).numpy().tolist()
        [[0.75, 0.25]]
    """
    probabilities = ops.cast(outputs, "float32")
    return per_class(probabilities, "probability" if probabilities.shape[-1] == 1 else "classes")


def _log(outputs: Any) -> Any:
    return ops.log(ops.maximum(class_probabilities(outputs), _SMALLEST))


_JOINS = frozenset({OpKind.ADD, OpKind.CONCAT})
_KERNELS = frozenset({OpKind.CONV, OpKind.DEPTHWISE_CONV})
_BEHIND = frozenset({OpKind.BATCH_NORM, OpKind.RELU, OpKind.ACTIVATION})


def common_features(teacher: keras.Model, student: keras.Model) -> tuple[str, ...]:
    """Names of layers in both models, called once, where branches join; of every kernel where none do.

    Args:
        teacher: the float model.
        student: made from it; layers keep their names.

    Example:
        >>> x = keras.Input((8, 8, 3))
        >>> y = keras.layers.Conv2D(3, 1, name="conv")(x)
        >>> y = keras.layers.ReLU(name="block_out")(keras.layers.Add(name="add")([x, y]))
        >>> model = keras.Model(x, keras.layers.Conv2D(2, 8, name="head")(y))
        >>> common_features(model, model)
        ('block_out',)
    """
    graph = trace(teacher).graph
    calls = [node.layer for node in graph.nodes]
    known = {layer.name for layer in teacher.layers} & {layer.name for layer in student.layers}

    def places(kinds: frozenset[OpKind]) -> tuple[str, ...]:
        ways = (_activated(graph, node, known) for node in graph.nodes if node.kind in kinds)
        ends = (way[-1] for way in ways if way)
        names = (node.layer for node in ends if calls.count(node.layer) == 1 and not _leaves(graph, node))
        return tuple(dict.fromkeys(names))

    return places(_JOINS) or places(_KERNELS)


def with_layers_of(teacher: keras.Model, student: keras.Model) -> keras.Model:
    """The teacher with the layers that a student was quantized with, so that a name is the same tensor in both.

    A nested model's layers, and those that a layer such as SeparableConv2D stands for, are layers of their own in a
    quantized model: of `Conv2D(activation="swish")` the name is the convolution's alone there.

    Args:
        teacher: the float model. It isn't touched.
        student: a model made from it.

    Returns:
        A flat copy, or the teacher itself where that has these layers already, or the student lacks them too.
    """
    found = trace(teacher)
    calls = [(node.layer, found.calls[node.name].operation) for node in found.graph.nodes]
    flat = {name for name, operation in calls if isinstance(operation, keras.layers.Layer)}
    if flat == {layer.name for layer in teacher.layers} or not flat <= {layer.name for layer in student.layers}:
        return teacher
    return rebuild(found, copy_layer, lambda _, tensor: tensor)


def _activated(graph: Graph, node: Node, known: AbstractSet[str]) -> list[Node]:
    """The node, and the batch norms and activations that only its output goes through; those of known layers."""
    way = [node]
    while (reader := graph.sole_consumer(way[-1].outputs[0])) is not None and reader.kind in _BEHIND:
        way.append(reader)
    return [node for node in way if node.layer in known]


def _leaves(graph: Graph, node: Node) -> bool:
    """Whether it is an output of the model, which the distillation compares anyway."""
    return node.outputs[0] in graph.outputs


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

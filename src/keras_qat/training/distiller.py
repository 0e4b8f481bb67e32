"""Distillation: the terms of the loss, the features that are compared, and the Keras model that trains by them.

The terms are computed from class probabilities:

    labels        -Σ_c ỹ_c log p_c,   ỹ = (1 - ε) · onehot(y) + ε / C
    distillation  T² · KL(softmax(log t / T) ‖ softmax(log p / T))
    features      ‖t - s‖² / ‖t‖²

where t are the teacher's outputs, p (or s) the student's, C is the number of classes, ε the label smoothing and T the
temperature. T² keeps the gradient at the size it has at T = 1 (Hinton et al. 2015, https://arxiv.org/abs/1503.02531,
section 2). The logarithm of a softmax equals its logits up to a constant, which cancels in the next softmax. A single
score p, the output of a sigmoid, stands for the probabilities 1 - p and p: the first term is then the binary
cross-entropy, the second the divergence of two Bernoulli distributions.

Features are outputs of layers that teacher and student share. Each image gives thousands of such numbers to learn from,
but only one or two class probabilities that matter; therefore a few hundred images are enough to settle the weights, as
in block-wise reconstruction (Li et al. 2021, https://arxiv.org/abs/2102.05426). By default the features are taken where
branches of the network join, after the activation, because all errors of a block meet there. A network without branches
is compared after the activation of each kernel.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.graph import Graph, Node, best_class, per_class, trace
from keras_qat.training.cloning import clone, require_graph
from keras_qat.training.recipe import Distillation
from keras_qat.transform import copy_layer, rebuild
from keras_qat.types import OpKind, TrainingPrecision

_SMALLEST = 1e-30  # replaces a probability that underflows, or that rounding in a quantized softmax made zero
_JOINS = frozenset({OpKind.ADD, OpKind.CONCAT})
_KERNELS = frozenset({OpKind.CONV, OpKind.DEPTHWISE_CONV})
_FOLLOWERS = frozenset({OpKind.BATCH_NORM, OpKind.RELU, OpKind.ACTIVATION})
_PROBABILITIES = "class probabilities"  # the name of this output beside those of the features; no layer is called that


def labels_loss(labels: Any, probabilities: Any, smoothing: float = 0.0) -> Any:
    """Return the cross-entropy of the probabilities with the smoothed labels.

    Args:
        labels: integers, shape (batch,) or (batch, 1).
        probabilities: float, shape (batch, classes), or (batch, 1) for a single score.
        smoothing: ε, from 0 to less than 1.

    Returns:
        float32, shape (batch,).

    Example:
        >>> round(float(labels_loss(keras.ops.array([1]), keras.ops.array([[0.5, 0.5]]))[0]), 4)
        0.6931
    """
    log_p = _log(probabilities)
    classes = log_p.shape[-1]
    target = keras.ops.one_hot(keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32"), classes, dtype="float32")
    target = (1 - smoothing) * target + smoothing / classes
    return -keras.ops.sum(target * log_p, axis=-1)


def distillation_loss(teacher: Any, student: Any, temperature: float = 1.0) -> Any:
    """Return the Kullback-Leibler divergence of the student's probabilities from the teacher's, times T².

    Args:
        teacher: probabilities, float, shape (batch, classes), or (batch, 1) for a single score.
        student: probabilities, float, the same shape.
        temperature: T, above 0.

    Returns:
        A float32 scalar, at least 0: the mean over the images.

    Example:
        >>> from keras import ops
        >>> float(distillation_loss(keras.ops.array([[0.5, 0.5]]), keras.ops.array([[0.5, 0.5]])))
        0.0
    """
    log_t = keras.ops.log_softmax(_log(teacher) / temperature, axis=-1)
    log_p = keras.ops.log_softmax(_log(student) / temperature, axis=-1)
    return temperature**2 * keras.ops.mean(keras.ops.sum(keras.ops.exp(log_t) * (log_t - log_p), axis=-1))


def feature_loss(teacher: Any, student: Any) -> Any:
    """Return the squared distance of two outputs of one layer, relative to the squared norm of the teacher's.

    Args:
        teacher: float, any shape.
        student: float, the same shape.

    Returns:
        A float32 scalar, computed over the whole batch.

    Example:
        >>> float(feature_loss(keras.ops.array([2.0, 0.0]), keras.ops.array([1.0, 0.0])))
        0.25
    """
    t, s = keras.ops.cast(teacher, "float32"), keras.ops.cast(student, "float32")
    return keras.ops.sum(keras.ops.square(t - s)) / (keras.ops.sum(keras.ops.square(t)) + _SMALLEST)


def class_probabilities(outputs: Any) -> Any:
    """Return one probability per class, also for a classifier that gives a single score.

    Args:
        outputs: float, shape (batch, classes), or (batch, 1) for a single score.

    Returns:
        float32, shape (batch, classes), where classes is at least 2.

    Example:
        >>> from keras import ops
        >>> class_probabilities(keras.ops.array([[0.25]])).numpy().tolist()
        [[0.75, 0.25]]
    """
    probabilities = keras.ops.cast(outputs, "float32")
    return per_class(probabilities, "probability" if probabilities.shape[-1] == 1 else "classes")


def _log(outputs: Any) -> Any:
    return keras.ops.log(keras.ops.maximum(class_probabilities(outputs), _SMALLEST))


def common_features(teacher: keras.Model, student: keras.Model) -> tuple[str, ...]:
    """Return the names of the layers whose outputs are compared by default.

    Each Add and Concatenate gives one feature; if the network has none of them, each convolution does. The feature is
    taken after the batch norms and activations that alone read that output. Its layer must be in both models and be
    called once.

    Args:
        teacher: the float model.
        student: the model quantized from it, whose layers keep their names.

    Returns:
        Names of layers, in the order of the graph.

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
    shared = {layer.name for layer in teacher.layers} & {layer.name for layer in student.layers}

    def features(kinds: frozenset[OpKind]) -> tuple[str, ...]:
        ends = (_last_follower(graph, node, shared) for node in graph.nodes if node.kind in kinds)
        # The outputs of the model are compared in any case.
        inner = (end.layer for end in ends if end is not None and end.outputs[0] not in graph.outputs)
        return tuple(name for name in dict.fromkeys(inner) if calls.count(name) == 1)

    return features(_JOINS) or features(_KERNELS)


def _last_follower(graph: Graph, node: Node, layers: AbstractSet[str]) -> Node | None:
    """Follow batch norms and activations that are the only readers, and return the last node that is in `layers`."""
    chain = [node]
    while (reader := graph.sole_consumer(chain[-1].outputs[0])) is not None and reader.kind in _FOLLOWERS:
        chain.append(reader)
    return next((node for node in reversed(chain) if node.layer in layers), None)


def with_layers_of(teacher: keras.Model, student: keras.Model) -> keras.Model:
    """Rebuild the teacher from the layers that a quantized student has, so that a name means the same tensor in both.

    In a quantized model the layers of a nested model are layers of the model itself, and so are the parts of a layer
    such as SeparableConv2D: the name of `Conv2D(activation="swish")` is that of the convolution without its activation.

    Args:
        teacher: the float model, which isn't changed.
        student: a model made from it.

    Returns:
        A flat copy of the teacher; or the teacher itself, if it has these layers already or the student lacks them.
    """
    traced = trace(teacher)
    calls = [(node.layer, traced.calls[node.name].operation) for node in traced.graph.nodes]
    flat = {name for name, operation in calls if isinstance(operation, keras.layers.Layer)}
    if flat == {layer.name for layer in teacher.layers} or not flat <= {layer.name for layer in student.layers}:
        return teacher
    return rebuild(traced, copy_layer, lambda _, tensor: tensor)


class Distiller(keras.Model):
    """Trains `student` to give the same outputs as `teacher`; `Distillation` documents the loss.

    Compile it with the loss and the metrics for the labels, and fit it like any model. Its metric `agreement` is the
    share of images to which both give the same class. The student's weights are trained in place. The teacher isn't
    changed; a frozen copy of it is used.

    Args:
        student: a classifier, `(batch, …) → (batch, classes)` probabilities, or `(batch, 1)` from a sigmoid.
        teacher: a classifier with the same inputs and classes.
        distillation: weight, temperature and features of the loss.
        precision: the dtype policy of the teacher's copy.

    Raises:
        UserError: If the inputs or the classes differ, or if one of the models lacks the layer of a feature or calls it
            several times.
        UnsupportedModelError: If one of the models has no graph.

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
        """Configure training, without the loss for the labels if the distillation has weight 1.

        A loss that is never computed is never built, and JAX's `train_on_batch` would trace the model at every step to
        build it.
        """
        super().compile(optimizer, None if self.distillation.weight == 1 else loss, *arguments, **options)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the student's outputs by name: the probabilities and the features."""
        return self.student(inputs, training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the weighted sum of distillation, labels and the layers' own losses (regularizers), a scalar."""
        d = self.distillation
        targets = {name: keras.ops.stop_gradient(output) for name, output in self.teacher(x, training=False).items()}
        t, p = targets[_PROBABILITIES], y_pred[_PROBABILITIES]
        loss = d.weight * distillation_loss(t, p, d.temperature)
        for name in self._features:
            loss = loss + d.weight * d.feature_weight * feature_loss(targets[name], y_pred[name])
        class_t, class_p = (best_class(class_probabilities(outputs), "classes") for outputs in (t, p))
        self.agreement.update_state(keras.ops.cast(keras.ops.equal(class_t, class_p), "float32"))
        regularization = sum((keras.ops.sum(keras.ops.cast(term, "float32")) for term in self.losses), 0.0)
        # Keras adds the layers' own losses to the loss of the labels: in total they count once, whatever the weight.
        loss = (loss + d.weight * regularization) / _replicas()
        if d.weight == 1:
            return loss
        return loss + (1 - d.weight) * super().compute_loss(x, y, p, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the metrics, which compare the labels with the probabilities alone."""
        return super().compute_metrics(x, y, y_pred[_PROBABILITIES], sample_weight)


def require_teacher(student: keras.Model, teacher: keras.Model) -> None:
    """Refuse a teacher whose inputs or outputs have another shape than the student's; an unknown size fits any.

    Raises:
        UserError: If the shapes of the inputs or outputs differ.
        UnsupportedModelError: If one of the models has no graph.
    """
    for model in (student, teacher):
        require_graph(model)
    for what, teacher_shape, student_shape in (
        ("inputs", teacher.input_shape, student.input_shape),
        ("classes", teacher.output_shape, student.output_shape),
    ):
        if not _compatible(teacher_shape, student_shape):
            raise UserError(
                f"A teacher must have the {what} of the model that it teaches. Received: {teacher_shape} and "
                f"{student_shape}. Give the float model that was quantized."
            )


def _compatible(left: Any, right: Any) -> bool:
    """Return whether two (nested) shapes are equal; an unknown size equals any."""
    if isinstance(left, tuple | list) and isinstance(right, tuple | list):
        return len(left) == len(right) and all(map(_compatible, left, right))
    return left is None or right is None or bool(left == right)


def _with_features(model: keras.Model, names: Sequence[str], what: str) -> keras.Model:
    """Return the model with the outputs of some layers besides its own, as a dictionary by name."""
    known = {layer.name for layer in model.layers}
    missing = sorted(set(names) - known)
    if missing:
        raise UserError(
            f"The {what} {model.name!r} has no layer for a feature. Received: {', '.join(missing)}. Give names of "
            "layers that both the float and the quantized model have; `model.summary()` lists them."
        )
    features = {name: _output(model, name, what) for name in names}
    # Keras warns if it is called with a tensor where the model was made with a list of inputs.
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return keras.Model(inputs, {_PROBABILITIES: model.outputs[0], **features}, name=what)


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


def _replicas() -> int:
    """Return the number of devices whose gradients are summed, so that each loss is divided by it, as Keras does."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)

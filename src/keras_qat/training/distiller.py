"""Distillation: the features that are compared, and the Keras model that trains towards a teacher.

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
from keras_qat.graph import Graph, Node, trace
from keras_qat.training import losses
from keras_qat.training.cloning import clone, require_graph
from keras_qat.training.objectives import Objective, read_objectives
from keras_qat.training.recipe import Distillation
from keras_qat.training.trainer import Trainer, output_key, with_features
from keras_qat.transform import copy_layer, rebuild
from keras_qat.types import OpKind, TrainingPrecision

_JOINS = frozenset({OpKind.ADD, OpKind.CONCAT})
_KERNELS = frozenset({OpKind.CONV, OpKind.DEPTHWISE_CONV})
_FOLLOWERS = frozenset({OpKind.BATCH_NORM, OpKind.RELU, OpKind.ACTIVATION})


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


class Distiller(Trainer):
    """Trains `student` to give the same outputs as `teacher`; `Distillation` documents the loss.

    Compile it with the loss and the metrics for the labels, and fit it like any model. Its metric `agreement` is the
    share of images, or of positions, to which both give the same class; for other outputs than classes, `sqnr` is the
    ratio of the teacher's outputs to the difference in dB. The student's weights are trained in place. The teacher
    isn't changed; a frozen copy of it is used.

    Args:
        student: a model of any inputs and outputs. Probabilities behind a softmax or a sigmoid are matched by their
            divergence, any other output by its relative squared error.
        teacher: a model with the same inputs and outputs.
        distillation: weight, temperature and features of the loss.
        precision: the dtype policy of the teacher's copy.
        objectives: what each output is trained for; read from the models if `None`.

    Raises:
        UserError: If the inputs or the outputs differ, or if one of the models lacks the layer of a feature or calls it
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
        objectives: Sequence[Objective] | None = None,
    ) -> None:
        require_teacher(student, teacher)
        objectives = tuple(objectives or read_objectives(student, teacher))
        outputs = [objective.name for objective in objectives]
        teacher = with_layers_of(teacher, student)
        names = distillation.features
        features = common_features(teacher, student) if names == "auto" else names
        super().__init__(student, outputs, features, name="distiller")
        self.distillation = distillation
        self._features, self._objectives = features, objectives
        self.teacher = with_features(clone(teacher, precision=precision), outputs, features, "teacher")
        self.teacher.trainable = False
        numbers = sum(objective.task.scores is None for objective in objectives)
        self.agreement = keras.metrics.Mean("agreement") if numbers < len(objectives) else None
        self.sqnr = losses.SignalToNoise(numbers) if numbers else None

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, *arguments: Any, **options: Any) -> None:
        """Configure training, without the loss for the labels if the distillation has weight 1.

        A loss that is never computed is never built, and JAX's `train_on_batch` would trace the model at every step to
        build it.
        """
        super().compile(optimizer, None if self.distillation.weight == 1 else loss, *arguments, **options)

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
        taught = self.teacher(self.ordered(x), training=False)
        targets = {name: keras.ops.stop_gradient(output) for name, output in taught.items()}
        pairs = [(o, targets[output_key(o.name)], y_pred[output_key(o.name)]) for o in self._objectives]
        loss = d.weight * (sum(o.distance(t, s, d.temperature) for o, t, s in pairs) / len(pairs))
        for name in self._features:
            loss = loss + d.weight * d.feature_weight * losses.feature_loss(targets[name], y_pred[name])
        self._compare(pairs)
        regularization = sum((keras.ops.sum(keras.ops.cast(term, "float32")) for term in self.losses), 0.0)
        # Keras adds the layers' own losses to the loss of the labels: in total they count once, whatever the weight.
        loss = (loss + d.weight * regularization) / _replicas()
        if d.weight == 1:
            return loss
        return loss + (1 - d.weight) * super().compute_loss(x, y, y_pred, sample_weight, training)

    def _compare(self, pairs: Sequence[tuple[Objective, Any, Any]]) -> None:
        """Update the metrics of agreement."""
        for objective, t, s in pairs:
            if objective.task.scores is not None and self.agreement is not None:
                self.agreement.update_state(losses.agreement(t, s, objective.task.scores))
        numbers = [(t, s) for objective, t, s in pairs if objective.task.scores is None]
        if self.sqnr is not None:
            self.sqnr.update_state([t for t, _ in numbers], [s for _, s in numbers])


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
        ("outputs", teacher.output_shape, student.output_shape),
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


def _replicas() -> int:
    """Return the number of devices whose gradients are summed, so that each loss is divided by it, as Keras does."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)

"""The terms of the loss of each output, by what its numbers are, and the metrics beside them.

With the teacher's output t, the student's s, and their probabilities of classes p(t), p(s):

    distillation of classes      T² · KL(softmax(log p(t) / T) ‖ softmax(log p(s) / T))
    distillation of numbers      ‖t - s‖² / ‖t‖²
    labels of classes            -Σ_c ỹ_c log p_c(s),   ỹ = (1 - ε) · onehot(y) + ε / C
    labels of numbers            mean (y - s)²
    features                     ‖t - s‖² / ‖t‖²

where C is the number of classes, ε the label smoothing and T the temperature. T² keeps the gradient at the size it has
at T = 1 (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2). The logarithm of a softmax equals its logits
up to a constant, which cancels in the next softmax. A single score p, the output of a sigmoid, stands for the
probabilities 1 - p and p. Several sigmoids that are independent of each other are as many such pairs, and their
divergences are added. Where an output has a class for each of its positions, the terms are means over the positions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras

from keras_qat.graph import best_class, classes_of
from keras_qat.types import UNLABELLED, OutputTask, ScoreMeaning

Reading = Literal["probabilities", "logits", "probability", "logit", "independent", "numbers"]
"""What the numbers along the last axis of an output are: the probabilities of classes or their logits, a single
probability or its logit, the probabilities of properties that are independent of each other, or numbers of another
meaning."""

VOID = 255
"""The label of a position of a mask that has no class, as datasets in PNG files write it; -1 is another."""

_SMALLEST = 1e-30  # replaces a probability that underflows, or that rounding in a quantized softmax made zero
_LARGEST_SQNR = 1e-20  # the smallest noise of a metric, as a share of the signal: 200 dB


def _log(probabilities: Any) -> Any:
    return keras.ops.log(keras.ops.maximum(probabilities, _SMALLEST))


_LOG_PROBABILITIES: Mapping[Reading, Callable[[Any], Any]] = {
    "probabilities": _log,
    "logits": lambda z: keras.ops.log_softmax(z, axis=-1),
    "probability": lambda p: _log(keras.ops.concatenate([1 - p, p], -1)),
    "logit": lambda z: keras.ops.log_softmax(keras.ops.concatenate([keras.ops.zeros_like(z), z], -1), axis=-1),
    "independent": lambda p: _log(keras.ops.stack([1 - p, p], -1)),
}
"""The logarithms of the probabilities of classes along the last axis, up to a constant; `independent` adds that axis.
"""


def log_probabilities(outputs: Any, reading: Reading | None = None) -> Any:
    """Return the logarithms of the probabilities of an output's classes, in float32.

    Args:
        outputs: float, shape (batch, …, classes), or (batch, …, 1) for a single score.
        reading: what the numbers are; by default probabilities, or a probability if there is one alone.

    Returns:
        float32, shape (batch, …, classes), where classes is at least 2; for `"independent"` (batch, …, classes, 2).

    Example:
        >>> from keras import ops
        >>> [round(float(x), 3) for x in ops.exp(log_probabilities(ops.array([[0.25]])))[0]]
        [0.75, 0.25]
        >>> [round(float(x), 3) for x in ops.exp(log_probabilities(ops.array([[0.0]]), "logit"))[0]]
        [0.5, 0.5]
    """
    outputs = keras.ops.cast(outputs, "float32")
    return _LOG_PROBABILITIES[reading or ("probability" if outputs.shape[-1] == 1 else "probabilities")](outputs)


def labels_loss(labels: Any, outputs: Any, smoothing: float = 0.0, reading: Reading | None = None) -> Any:
    """Return the cross-entropy of an output's classes with the smoothed labels.

    Args:
        labels: integers, shape (batch,) or (batch, 1); for a class of each position (batch, …) or (batch, …, 1). A
            position labelled -1, or 255 where there are fewer classes than that, doesn't count.
        outputs: float, shape (batch, classes), or (batch, 1) for a single score; with axes of positions between.
        smoothing: ε, from 0 to less than 1.
        reading: what the outputs are, as for `log_probabilities`.

    Returns:
        float32, shape (batch,). The mean over the batch is the mean over all positions that count.

    Example:
        >>> round(float(labels_loss(keras.ops.array([1]), keras.ops.array([[0.5, 0.5]]))[0]), 4)
        0.6931
    """
    log_p = log_probabilities(outputs, reading)
    independent = reading == "independent"
    classes = log_p.shape[-2] if independent else log_p.shape[-1]
    labels, counted = _class_labels(labels, len(outputs.shape), classes)
    target = keras.ops.one_hot(labels, classes, dtype="float32")
    target = (1 - smoothing) * target + smoothing / classes
    if independent:
        target = keras.ops.stack([1 - target, target], -1)
    entropy = -keras.ops.sum(target * log_p, axis=(-2, -1) if independent else -1)
    if counted is None:
        return entropy
    axes = tuple(range(1, len(entropy.shape)))
    scale = keras.ops.cast(keras.ops.shape(entropy)[0], "float32") / keras.ops.maximum(keras.ops.sum(counted), 1.0)
    return keras.ops.sum(entropy * counted, axis=axes) * scale


def _class_labels(labels: Any, output_rank: int, classes: int) -> tuple[Any, Any]:
    """Return the labels as int32 without a last axis of 1, and which positions count, 0 or 1; `None` for all."""
    labels = keras.ops.cast(labels, "int32")
    if len(labels.shape) == output_rank:
        labels = labels[..., 0]
    if len(labels.shape) == 1:
        return labels, None
    counted = keras.ops.not_equal(labels, UNLABELLED)
    if classes <= VOID:
        counted = keras.ops.logical_and(counted, keras.ops.not_equal(labels, VOID))
    return keras.ops.where(counted, labels, 0), keras.ops.cast(counted, "float32")


def squared_error(labels: Any, outputs: Any) -> Any:
    """Return the mean squared difference of the outputs from the labels.

    Args:
        labels: numbers of the shape of the outputs, or without a last axis of 1.
        outputs: float, shape (batch, …).

    Returns:
        float32, shape (batch,).

    Example:
        >>> from keras import ops
        >>> float(squared_error(ops.array([3.0]), ops.array([[1.0]]))[0])
        4.0
    """
    labels, outputs = (keras.ops.cast(array, "float32") for array in (labels, outputs))
    if len(labels.shape) < len(outputs.shape):
        labels = labels[..., None]
    return keras.ops.mean(keras.ops.square(labels - outputs), axis=tuple(range(1, len(outputs.shape))))


def distillation_loss(
    teacher: Any,
    student: Any,
    temperature: float = 1.0,
    reading: Reading | None = None,
    teacher_reading: Reading | None = None,
) -> Any:
    """Return the Kullback-Leibler divergence of the student's probabilities from the teacher's, times T².

    Args:
        teacher: probabilities, float, shape (batch, classes), or (batch, 1) for a single score, with axes of positions
            between; or what `teacher_reading` says.
        student: the same shape.
        temperature: T, above 0.
        reading: what the student's outputs are, as for `log_probabilities`.
        teacher_reading: what the teacher's outputs are; the same as the student's by default.

    Returns:
        A float32 scalar, at least 0: the mean over the images and positions, for `"independent"` of the sum over the
        last axis.

    Example:
        >>> from keras import ops
        >>> float(distillation_loss(keras.ops.array([[0.5, 0.5]]), keras.ops.array([[0.5, 0.5]])))
        0.0
    """
    log_t = keras.ops.log_softmax(log_probabilities(teacher, teacher_reading or reading) / temperature, axis=-1)
    log_p = keras.ops.log_softmax(log_probabilities(student, reading) / temperature, axis=-1)
    divergence = keras.ops.sum(keras.ops.exp(log_t) * (log_t - log_p), axis=-1)
    if reading == "independent":
        divergence = keras.ops.sum(divergence, axis=-1)
    return temperature**2 * keras.ops.mean(divergence)


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


def agreement(teacher: Any, student: Any, meaning: ScoreMeaning) -> Any:
    """Return the share of classes that two outputs have in common, float32, shape (batch,): 0 or 1 without positions.

    Args:
        teacher: scores, float, shape (batch, …, classes), or (batch, …, 1) for a single score.
        student: the same shape.
        meaning: what the scores mean.

    Example:
        >>> from keras import ops
        >>> float(agreement(ops.array([[[0.2], [0.9]]]), ops.array([[[0.6], [0.8]]]), "probability")[0])
        0.5
    """
    t, p = (best_class(keras.ops.cast(scores, "float32"), meaning) for scores in (teacher, student))
    same = keras.ops.cast(keras.ops.equal(t, p), "float32")
    return keras.ops.mean(same, axis=tuple(range(1, len(same.shape)))) if len(same.shape) > 1 else same


class Accuracy(keras.metrics.Mean):
    """The share of labels that are the best class of their image or position; positions without a class don't count.

    Args:
        task: the output's task, one with scores.

    Example:
        >>> from keras import ops
        >>> accuracy = Accuracy(OutputTask("mask", "segmentation", "classes"))
        >>> accuracy.update_state(ops.array([[0, 1, 255]]), ops.array([[[0.9, 0.1], [0.8, 0.2], [0.5, 0.5]]]))
        >>> float(accuracy.result())
        0.5
    """

    def __init__(self, task: OutputTask) -> None:
        super().__init__(name="accuracy", dtype="float32")
        self._meaning = task.scores

    def update_state(self, labels: Any, outputs: Any, sample_weight: Any = None) -> None:  # noqa: ARG002
        """Count the labels of a batch."""
        scores = keras.ops.cast(outputs, "float32")
        meaning = self._meaning or "classes"
        labels, counted = _class_labels(labels, len(scores.shape), classes_of(scores.shape[-1], meaning))
        right = keras.ops.equal(labels, keras.ops.cast(best_class(scores, meaning), "int32"))
        super().update_state(keras.ops.cast(right, "float32"), sample_weight=counted)


class SignalToNoise(keras.metrics.Metric):
    """The SQNR in dB of the student's outputs: 10 log₁₀ (Σ t² / Σ (t - s)²) over all batches, at most 200.

    With several outputs, the noise is the mean of their shares Σ (t - s)² / Σ t².

    Args:
        outputs: the number of outputs.

    Example:
        >>> from keras import ops
        >>> sqnr = SignalToNoise(1)
        >>> sqnr.update_state([ops.array([[3.0, 1.0]])], [ops.array([[3.0, 2.0]])])
        >>> round(float(sqnr.result()), 3)
        10.0
    """

    def __init__(self, outputs: int) -> None:
        super().__init__(name="sqnr", dtype="float32")
        self.signal = self.add_weight(name="signal", shape=(outputs,), initializer="zeros")
        self.noise = self.add_weight(name="noise", shape=(outputs,), initializer="zeros")

    def update_state(self, teacher: Sequence[Any], student: Sequence[Any]) -> None:
        """Add the squares of a batch."""
        pairs = [
            (keras.ops.cast(t, "float32"), keras.ops.cast(s, "float32")) for t, s in zip(teacher, student, strict=True)
        ]
        self.signal.assign_add(keras.ops.stack([keras.ops.sum(keras.ops.square(t)) for t, _ in pairs]))
        self.noise.assign_add(keras.ops.stack([keras.ops.sum(keras.ops.square(t - s)) for t, s in pairs]))

    def result(self) -> Any:
        """Return the SQNR, a float32 scalar."""
        share = keras.ops.mean(self.noise / keras.ops.maximum(self.signal, _SMALLEST))
        return -10 * keras.ops.log10(keras.ops.maximum(share, _LARGEST_SQNR))

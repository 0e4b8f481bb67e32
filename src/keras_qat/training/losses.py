"""The terms of a training's loss, of class probabilities.

    labels        -Σ_c ỹ_c log p_c,   ỹ = (1 - ε) · onehot(y) + ε / C
    distillation  T² · KL(softmax(log t / T) ‖ softmax(log p / T))
    features      ‖t - s‖² / ‖t‖²

with t the teacher's and p (or s) the student's outputs, C classes, ε the label smoothing, T the temperature. T² keeps
the gradient at the size it has at T = 1 (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2). The
logarithm of a softmax is its logits up to a constant, which the next softmax doesn't see. A single score, a sigmoid's
p, stands for the probabilities 1 - p and p: the first term is then binary cross-entropy, the second that of Bernoulli.
"""

from typing import Any

from keras import ops

from keras_qat.scores import per_class

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

"""The terms of the loss compared with NumPy in float64."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_qat.training.losses import distillation_loss, feature_loss, labels_loss


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def logits(seed: int, count: int = 6, classes: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (count, classes))


def probabilities(seed: int) -> Any:
    return tf.constant(softmax(logits(seed)), tf.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_labels(smoothing: float) -> None:
    labels = np.array([0, 4, 2, 2, 1, 3])
    target = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5
    expected = -(target * np.log(softmax(logits(0)))).sum(axis=-1)
    for given in (labels, labels[:, None], labels.astype("float32")):  # as datasets give them, and as Keras casts them
        np.testing.assert_allclose(labels_loss(given, probabilities(0), smoothing), expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.5])
def test_distillation(temperature: float) -> None:
    """The expected value is computed from the logits, which the function doesn't see."""
    t, p = softmax(logits(1) / temperature), softmax(logits(2) / temperature)
    expected = temperature**2 * (t * (np.log(t) - np.log(p))).sum(axis=-1).mean()
    assert float(distillation_loss(probabilities(1), probabilities(2), temperature)) == pytest.approx(
        expected, rel=1e-4
    )
    assert float(distillation_loss(probabilities(1), probabilities(1), temperature)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_of_distillation_is_that_to_the_logits(temperature: float) -> None:
    """By hand it is T · (p_T - t_T) / batch: of the factor T² of the loss, T remains."""
    student = tf.constant(logits(2), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = distillation_loss(probabilities(1), tf.nn.softmax(student), temperature)
    t, p = softmax(logits(1) / temperature), softmax(logits(2) / temperature)
    np.testing.assert_allclose(tape.gradient(loss, student), temperature * (p - t) / 6, atol=1e-5)


def test_features() -> None:
    t, s = np.random.default_rng(3).normal(0, 1, (2, 4, 3, 3, 2))
    expected = ((t - s) ** 2).sum() / (t**2).sum()
    assert float(feature_loss(tf.constant(t), tf.constant(s))) == pytest.approx(expected, rel=1e-5)
    assert float(feature_loss(tf.constant(t), tf.constant(t))) == 0
    half = feature_loss(tf.cast(t, tf.bfloat16), tf.cast(s, tf.bfloat16))
    assert half.dtype == tf.float32
    assert float(half) == pytest.approx(expected, rel=0.02)
    assert np.isfinite(float(feature_loss(tf.zeros((2, 3)), tf.zeros((2, 3)))))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_probabilities_of_exactly_zero(temperature: float) -> None:
    """The probabilities of a confident network underflow, and a quantized softmax rounds to zero."""
    certain = tf.constant([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    wrong = tf.constant([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(wrong)
        terms = [
            tf.reduce_sum(labels_loss(np.array([0, 1]), wrong, 0.1)),
            distillation_loss(certain, wrong, temperature),
            distillation_loss(wrong, certain, temperature),
        ]
        total = tf.add_n(terms)
    assert all(np.isfinite(float(term)) and float(term) > 1 for term in terms)
    assert np.isfinite(tape.gradient(total, wrong).numpy()).all()
    assert float(distillation_loss(certain, certain, temperature)) == 0


def test_half_precision_is_computed_in_float32() -> None:
    half = tf.cast(probabilities(0), tf.bfloat16)
    for loss in (labels_loss(np.zeros(6, int), half), distillation_loss(half, half), feature_loss(half, half)):
        assert loss.dtype == tf.float32

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


# --- classes of positions, logits, independent sigmoids ---------------------------------------------------------------

MAPS = np.random.default_rng(7).normal(0, 2, (2, 3, 4, 5, 6))  # teacher and student, (batch, height, width, classes)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("reading", ["probabilities", "logits"])
def test_distillation_of_positions(reading: Any, temperature: float) -> None:
    """The mean over images and positions, from the logits in float64."""
    z_t, z_s = MAPS
    t, p = softmax(z_t / temperature), softmax(z_s / temperature)
    expected = temperature**2 * (t * (np.log(t) - np.log(p))).sum(axis=-1).mean()
    given = (softmax(z_t), softmax(z_s)) if reading == "probabilities" else MAPS
    loss = distillation_loss(*(tf.constant(array, tf.float32) for array in given), temperature, reading)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_of_distillation_of_positions_is_that_to_the_logits() -> None:
    """By hand it is (p - t) / (batch · height · width)."""
    z_t, student = MAPS[0], tf.constant(MAPS[1], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = distillation_loss(tf.constant(z_t, tf.float32), student, reading="logits")
    expected = (softmax(MAPS[1]) - softmax(z_t)) / (3 * 4 * 5)
    np.testing.assert_allclose(tape.gradient(loss, student), expected, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_logit_is_read_as_its_sigmoid(temperature: float) -> None:
    z_t, z_s = MAPS[..., :1]
    t, p = (1 / (1 + np.exp(-z / temperature)) for z in (z_t, z_s))
    expected = temperature**2 * (t * np.log(t / p) + (1 - t) * np.log((1 - t) / (1 - p))).mean()
    loss = distillation_loss(tf.constant(z_t, tf.float32), tf.constant(z_s, tf.float32), temperature, "logit")
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    labels = np.arange(60).reshape(3, 4, 5) % 2
    p = 1 / (1 + np.exp(-z_s[..., 0]))
    entropy = -np.where(labels == 1, np.log(p), np.log(1 - p)).mean(axis=(1, 2))
    np.testing.assert_allclose(labels_loss(labels, tf.constant(z_s, tf.float32), 0.0, "logit"), entropy, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_labels_of_positions_that_count(smoothing: float) -> None:
    labels = np.arange(60).reshape(3, 4, 5) % 6
    labels[0, :2], labels[1, 1] = 255, -1
    counted = (labels != 255) & (labels != -1)
    target = (1 - smoothing) * np.eye(6)[np.where(counted, labels, 0)] + smoothing / 6
    entropy = -(target * np.log(softmax(MAPS[1]))).sum(axis=-1)
    loss = labels_loss(labels, tf.constant(MAPS[1], tf.float32), smoothing, "logits")
    assert loss.shape == (3,)
    assert float(np.mean(loss)) == pytest.approx(entropy[counted].mean(), rel=1e-5)
    nothing = labels_loss(np.full((3, 4, 5), 255), tf.constant(MAPS[1], tf.float32), smoothing, "logits")
    np.testing.assert_array_equal(nothing, 0)


def test_independent_sigmoids() -> None:
    """The divergences of the Bernoulli distributions are added; the labels are numbers of classes."""
    t, s = 1 / (1 + np.exp(-MAPS[:, :, 0, 0]))
    expected = (t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s))).sum(axis=-1).mean()
    given = [tf.constant(array, tf.float32) for array in (t, s)]
    assert float(distillation_loss(*given, reading="independent")) == pytest.approx(expected, rel=1e-4)
    hot = np.eye(6)[[1, 5, 0]]
    entropy = -(hot * np.log(s) + (1 - hot) * np.log(1 - s)).sum(axis=-1)
    np.testing.assert_allclose(labels_loss(np.array([1, 5, 0]), given[1], 0.0, "independent"), entropy, rtol=1e-4)


def test_the_class_255_counts_where_there_are_as_many() -> None:
    z = np.random.default_rng(8).normal(0, 1, (1, 2, 300))
    labels = np.array([[255, -1]])
    loss = labels_loss(labels, tf.constant(z, tf.float32), 0.0, "logits")
    assert float(loss[0]) == pytest.approx(-np.log(softmax(z))[0, 0, 255], rel=1e-4)


def test_half_precision_is_computed_in_float32() -> None:
    half = tf.cast(probabilities(0), tf.bfloat16)
    for loss in (labels_loss(np.zeros(6, int), half), distillation_loss(half, half), feature_loss(half, half)):
        assert loss.dtype == tf.float32

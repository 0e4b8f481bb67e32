"""Fine-tuning of every task: segmentation, regression, reconstruction, sensors, several inputs and outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest

import keras_qat.training.epochs as epochs_loop
from keras_qat import apply_placement, calibrate, plan, trace
from keras_qat.errors import DataError, UserError
from keras_qat.training import (
    Distillation,
    EpochRecord,
    FineTuned,
    Recipe,
    fine_tune,
    require_trainable,
    train_baseline,
)
from keras_qat.training.batches import read_data
from keras_qat.training.model_outputs import Wishes
from keras_qat.training.session import open_session
from keras_qat.types import OutputTask

layers = keras.layers
RECIPE = Recipe(optimizer="sgd", learning_rate=0.01, epochs=3, batch_size=8, schedule="constant")
COUNT = 16


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (COUNT, *shape)).astype("float32")


def unet() -> keras.Model:
    image = keras.Input((8, 8, 3), name="image")
    x = skip = layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D()(x))
    x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
    return keras.Model(image, layers.Conv2D(3, 1, activation="softmax", name="mask")(x))


def keypoints() -> keras.Model:
    image = keras.Input((6, 10, 3), name="image")
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(image)
    return keras.Model(image, layers.Dense(4, name="box")(layers.Flatten()(x)))


def autoencoder() -> keras.Model:
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(image)
    return keras.Model(image, layers.Conv2DTranspose(1, 3, strides=2, padding="same", name="again")(x))


def sensor() -> keras.Model:
    signal = keras.Input((20, 2), name="signal")
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(6, 5, activation="relu")(signal))
    return keras.Model(signal, layers.Dense(3, "softmax", name="state")(x))


def two_inputs() -> keras.Model:
    image, size = keras.Input((6, 6, 1), name="image"), keras.Input((2,), name="size")
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(image))
    x = layers.Concatenate()([x, layers.Dense(4, "relu")(size)])
    return keras.Model([image, size], layers.Dense(2, "softmax", name="kind")(x))


def detector() -> keras.Model:
    image = keras.Input((6, 6, 3), name="image")
    x = layers.Flatten()(layers.Conv2D(6, 3, strides=2, activation="relu")(image))
    return keras.Model(
        image, {"kind": layers.Dense(3, "softmax", name="kind")(x), "box": layers.Dense(4, name="box")(x)}
    )


@dataclass(frozen=True)
class Case:
    """A model, its images, and which measures a teacher gives it."""

    build: Callable[[], keras.Model]
    x: Any
    agreement: bool = True
    sqnr: bool = False


CASES = {
    "segmenter": Case(unet, noise(8, 8, 3)),
    "regression": Case(keypoints, noise(6, 10, 3), agreement=False, sqnr=True),
    "autoencoder": Case(autoencoder, noise(8, 8, 1), agreement=False, sqnr=True),
    "sensor": Case(sensor, noise(20, 2)),
    "two inputs": Case(two_inputs, {"size": noise(2, seed=1), "image": noise(6, 6, 1)}),
    "two outputs": Case(detector, noise(6, 6, 3), sqnr=True),
}


def quantized(model: keras.Model, x: Any) -> keras.Model:
    """With weights of 4 bits, so that there is something to gain."""
    placement = plan(trace(model).graph, "onnxruntime", weight_bits=4)
    return apply_placement(model, placement, calibrate(model, placement, x))


def outputs(model: keras.Model, x: Any) -> list[np.ndarray]:
    """In float64, in flattened order."""
    return [np.asarray(y, np.float64) for y in keras.tree.flatten(model(x, training=False))]


@pytest.mark.parametrize("name", CASES)
def test_the_teachers_outputs_are_approached(name: str) -> None:
    case = CASES[name]
    keras.utils.set_random_seed(1)
    model = case.build()
    student = quantized(model, case.x)
    tuned = fine_tune(student, case.x, case.x, RECIPE, teacher=model, progress=False)
    given, best = tuned.history[0], tuned.history[tuned.best_epoch]
    assert best.selection_loss < 0.98 * given.selection_loss
    assert (given.selection_agreement is not None, given.selection_sqnr is not None) == (case.agreement, case.sqnr)
    classes, noises = [], []
    for t, s in zip(outputs(model, case.x), outputs(tuned.model, case.x), strict=True):
        if np.allclose(t.sum(axis=-1), 1):
            classes.append(np.mean(t.argmax(-1) == s.argmax(-1)))
        else:
            noises.append(((t - s) ** 2).sum() / (t**2).sum())
    if case.agreement:
        assert best.selection_agreement == pytest.approx(np.mean(classes), abs=1e-6)
    if case.sqnr:
        assert best.selection_sqnr == pytest.approx(-10 * np.log10(np.mean(noises)), abs=0.02)


# --- labels -----------------------------------------------------------------------------------------------------------

IMAGES = noise(6, 6, 3)
KINDS = np.arange(COUNT) % 3
BOXES = noise(4, seed=4)
MASKS = np.random.default_rng(5).integers(0, 3, (COUNT, 6, 6)).astype("uint8")
LABELS_ONLY = Recipe(learning_rate=2e-3, epochs=1, batch_size=8, schedule="constant", distillation=None)


def segmenter(last: str | None = "softmax") -> keras.Model:
    image = keras.Input((6, 6, 3), name="image")
    return keras.Model(image, layers.Conv2D(3, 3, padding="same", activation=last, name="mask")(image))


def evaluated(model: keras.Model, x: Any, y: Any, recipe: Recipe = LABELS_ONLY, **options: Any) -> FineTuned:
    return fine_tune(model, (x, y), (x, y), recipe, progress=False, **options)


def as_given(model: keras.Model, x: Any, y: Any, recipe: Recipe = LABELS_ONLY, **options: Any) -> EpochRecord:
    """The record of epoch 0 alone, without the compilation of a training step."""
    teacher = options.pop("teacher", None)
    data = read_data((x, y), (x, y), recipe, model, teacher, Wishes(**options))
    session = open_session(model, recipe, data.steps, teacher=teacher, objectives=data.objectives)
    return epochs_loop._evaluate_given(session, data)


def test_positions_without_a_class_do_not_count() -> None:
    """By hand in float64, for probabilities and for logits."""
    masks = MASKS.copy()
    masks[:, :2] = 255
    masks = np.where(masks == 2, 255, masks)
    model = segmenter()
    logits = segmenter(None)
    logits.set_weights(model.get_weights())
    (p,) = outputs(model, IMAGES)
    counted = masks != 255
    picked = np.take_along_axis(p, np.where(counted, masks, 0)[..., None].astype(int), -1)[..., 0]
    # The two batches of the selection have about as many positions that count; each is a mean over its own.
    means = [-np.log(picked[part])[counted[part]].mean() for part in (slice(8), slice(8, 16))]
    right = (p.argmax(-1) == masks)[counted].mean()
    signed = np.where(counted, masks, -1).astype("int32")
    for network, labels in ((model, masks), (logits, masks), (model, signed), (model, signed[..., None])):
        given = as_given(network, IMAGES, labels)
        assert given.selection_loss == pytest.approx(np.mean(means), rel=1e-4)
        assert given.selection_accuracy == pytest.approx(right, abs=1e-6)


def test_the_labels_of_several_outputs_by_hand() -> None:
    """The mean of the cross-entropy and of the squared error, whatever structure the labels have."""
    model = detector()
    box, kind = outputs(model, IMAGES)  # in the order of the keys
    entropy = -np.log(kind[np.arange(COUNT), KINDS]).mean()
    error = ((box - BOXES) ** 2).mean()
    given, trained = evaluated(model, IMAGES, (BOXES, KINDS)).history
    assert trained.train_accuracy is not None
    assert trained.selection_loss < given.selection_loss
    for labels in ([BOXES, KINDS], {"kind": KINDS, "box": BOXES}):
        again = as_given(model, IMAGES, labels)
        assert again.selection_loss == given.selection_loss == pytest.approx((entropy + error) / 2, rel=1e-4)
        assert again.selection_accuracy == pytest.approx((kind.argmax(-1) == KINDS).mean())
        assert again.selection_metrics == {}


def test_an_output_without_labels_is_left_to_the_others() -> None:
    model = detector()
    _, kind = outputs(model, IMAGES)
    recipe = Recipe(epochs=1, batch_size=8, distillation=Distillation(0.5, features=()))
    given = as_given(model, IMAGES, {"kind": KINDS}, recipe, teacher=model)
    assert given.selection_loss == pytest.approx(-np.log(kind[np.arange(COUNT), KINDS]).mean() / 2, rel=1e-4)
    assert given.selection_accuracy == pytest.approx((kind.argmax(-1) == KINDS).mean())
    with pytest.raises(UserError, match=r"Without a teacher each output needs labels.*no labels for 'box'"):
        evaluated(model, IMAGES, {"kind": KINDS})


def test_losses_and_metrics_of_the_users_own() -> None:
    model = detector()
    box, kind = outputs(model, IMAGES)
    one_hot = np.eye(3, dtype="float32")[KINDS]
    given = as_given(
        model,
        IMAGES,
        {"kind": one_hot, "box": BOXES},
        loss={"kind": keras.losses.CategoricalCrossentropy(), "box": lambda y, p: keras.ops.abs(y - p)},
        metrics={"box": ["mae"]},
        tasks=(OutputTask("box", "regression"), OutputTask("kind", "classification", "classes")),
    )
    entropy, distance = -np.log(kind[np.arange(COUNT), KINDS]).mean(), np.abs(box - BOXES).mean()
    assert given.selection_loss == pytest.approx((entropy + distance) / 2, rel=1e-4)
    assert given.selection_metrics == {"box_mae": pytest.approx(distance, rel=1e-4)}


def test_labels_and_teacher_together_by_hand() -> None:
    """Half of each; with a loss of the user's own for a single output."""
    keras.utils.set_random_seed(1)
    model, teacher = keypoints(), keypoints()
    x, labels = noise(6, 10, 3), noise(4, seed=2)
    recipe = Recipe(epochs=1, batch_size=COUNT, distillation=Distillation(0.5, features=()))
    given = as_given(model, x, labels, recipe, teacher=teacher, loss="mae")
    (s,), (t,) = outputs(model, x), outputs(teacher, x)
    expected = 0.5 * ((t - s) ** 2).sum() / (t**2).sum() + 0.5 * np.abs(s - labels).mean()
    assert given.selection_loss == pytest.approx(expected, rel=1e-4)


def test_independent_sigmoids_are_matched_as_bernoulli_distributions() -> None:
    def build(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.Input((6,)), layers.Dense(4, "sigmoid")])

    x = noise(6)
    recipe = Recipe(epochs=1, batch_size=COUNT, distillation=Distillation(features=()))
    given = as_given(build(1), x, None, recipe, teacher=build(2))
    (s,), (t,) = outputs(build(1), x), outputs(build(2), x)
    divergence = t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s))
    assert given.selection_loss == pytest.approx(divergence.sum(-1).mean(), rel=1e-4)
    assert given.selection_sqnr == pytest.approx(-10 * np.log10(((t - s) ** 2).sum() / (t**2).sum()), abs=0.02)


def test_a_mean_of_softmaxes_gives_probabilities() -> None:
    """No last layer shows it, but the rows add up to 1."""

    def build(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        x = keras.Input((6,))
        return keras.Model(x, layers.Average()([layers.Dense(3, "softmax")(x), layers.Dense(3, "softmax")(x)]))

    x = noise(6)
    recipe = Recipe(epochs=1, batch_size=COUNT, distillation=Distillation(features=()))
    given = as_given(build(1), x, None, recipe, teacher=build(2))
    (s,), (t,) = outputs(build(1), x), outputs(build(2), x)
    assert given.selection_loss == pytest.approx((t * np.log(t / s)).sum(-1).mean(), rel=1e-4)
    assert given.selection_agreement == pytest.approx((t.argmax(-1) == s.argmax(-1)).mean())


def test_a_baseline_of_a_regression_has_the_lowest_loss() -> None:
    x = noise(6, 10, 3)
    labels = x[:, 0, 0, :1] * 2
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 10, 3)), layers.Flatten(), layers.Dense(1)])
    trained = train_baseline(model, (x, labels), (x, labels), epochs=4, learning_rate=0.01, progress=False)
    before, after = (((outputs(each, x)[0] - labels) ** 2).mean() for each in (model, trained))
    assert after < before / 2


# --- what can't be trained --------------------------------------------------------------------------------------------


def classes_at_the_end() -> keras.Model:
    image = keras.Input((6, 6, 3))
    x = layers.Conv2D(3, 1, name="scores")(image)
    return keras.Model(image, keras.ops.argmax(x, axis=-1))


@pytest.mark.parametrize(
    ("model", "recipe", "message"),
    [
        (classes_at_the_end, Recipe(), r"can't be trained.* no gradient.*argmax"),
        (keypoints, Recipe(monitor="accuracy"), r"needs an output of classes. Received: 'box' \(regression\).*'loss'"),
        (keypoints, Recipe(distillation=None, label_smoothing=0.1), r"`label_smoothing` needs an output of classes"),
    ],
)
def test_models_that_can_not_be_trained(model: Callable[[], keras.Model], recipe: Recipe, message: str) -> None:
    with pytest.raises(UserError, match=message):
        require_trainable(model(), recipe)


def test_tasks_are_one_an_output() -> None:
    with pytest.raises(UserError, match=r"a task for each of the 2 outputs\. Received: 1"):
        require_trainable(detector(), Recipe(), tasks=(OutputTask("kind", "classification", "classes"),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": {"knid": "mse"}}, r"losses name an output .*Received: 'knid'. The outputs are 'box', 'kind'"),
        ({"loss": ["mse"]}, r"losses must be given for each of the 2 outputs. Received: 1"),
        ({"loss": "mse of mine"}, r"`loss` must be a loss of Keras.*Received: 'mse of mine'"),
        ({"metrics": ["mae"]}, r"metrics must be given for each of the 2 outputs"),
    ],
)
def test_losses_and_metrics_of_no_output(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluated(detector(), IMAGES, (BOXES, KINDS), **options)


def test_a_loss_that_no_label_reaches_is_refused() -> None:
    with pytest.raises(UserError, match="`loss` compares the labels, and a distillation of weight 1"):
        evaluated(keypoints(), noise(6, 10, 3), noise(4), Recipe(), teacher=keypoints(), loss="mse")
    recipe = Recipe(distillation=Distillation(0.5))
    with pytest.raises(UserError, match="'box' has a loss or metrics of its own, and no labels"):
        evaluated(detector(), IMAGES, {"kind": KINDS}, recipe, teacher=detector(), metrics={"box": ["mae"]})


BAD_LABELS: dict[str, tuple[Callable[[], keras.Model], Any, str]] = {
    "class out of range": (detector, (BOXES, KINDS + 1), r"labels from 1 to 3.*subtract 1"),
    "one label too many": (detector, (BOXES, np.arange(17)), r"one length. Received: 16 and 17"),
    "a box too short": (
        detector,
        (BOXES[:, :3], KINDS),
        r"output 'box', \(batch, 4\). Received: float32 of shape \(8, 3",
    ),
    "a box that is no number": (detector, (BOXES * np.nan, KINDS), r"'box' are not finite"),
    "labels of one output": (detector, KINDS, r"2 outputs, and the labels of the .* are one array"),
    "labels of three outputs": (detector, (BOXES, KINDS, KINDS), r"each of the 2 outputs. Received: 3"),
    "labels of another output": (detector, {"class": KINDS}, r"labels name an output .*Received: 'class'"),
    "a mask of another size": (segmenter, MASKS[:, :5], r"one a position, of shape \(batch, 6, 6\).*shape \(8, 5, 6\)"),
    "a mask of floats": (segmenter, MASKS / 255, r"float64 of shape \(8, 6, 6\).*astype\('int32'\)"),
    "a mask of unknown classes": (segmenter, MASKS + np.uint8(1), r"labels from 1 to 3.*subtract 1"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_labels_that_do_not_fit(name: str) -> None:
    build, labels, message = BAD_LABELS[name]
    with pytest.raises((UserError, DataError), match=message) as caught:
        evaluated(build(), IMAGES, labels)
    assert "Received: " in str(caught.value)


def test_labels_that_stop_fitting_are_found_in_their_batch() -> None:
    """Later batches are checked like the first, and the error is ours on TensorFlow, too."""
    labels = KINDS.copy()
    labels[12] = 7
    batches = [(IMAGES[part], (BOXES[part], labels[part])) for part in (slice(8), slice(8, 16))]
    with pytest.raises(UserError, match=r"labels of the selection data .*Received: labels from 0 to 7"):
        fine_tune(detector(), batches, batches, LABELS_ONLY, progress=False)

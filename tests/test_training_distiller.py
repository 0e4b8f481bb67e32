"""Training towards the float model's outputs: in `fit`, in `fine_tune`, in a custom loop."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat import Ranges, apply_placement, calibrate, plan, trace
from keras_qat.errors import UnsupportedModelError, UserError
from keras_qat.training import Distillation, Distiller, Recipe, fine_tune
from keras_qat.training.losses import distillation_loss, labels_loss

LABELS = np.array([0, 1, 2, 0, 1, 2, 2, 1])
IMAGES = np.random.default_rng(0).normal(0, 1, (8, 6, 6, 1)).astype("float32")


def make_model(seed: int, classes: int = 3, *, decay: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    image = keras.Input((6, 6, 1), name="image")
    kernel = keras.regularizers.L2(decay) if decay else None
    x = keras.layers.Conv2D(2, 3, kernel_regularizer=kernel, name="conv")(image)
    x = keras.layers.Flatten()(keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization(name="bn")(x)))
    return keras.Model(image, keras.layers.Dense(classes, "softmax", name="head")(x), name="network")


def taps(model: keras.Model, *names: str) -> list[np.ndarray]:
    """Return the outputs of some layers in float64."""
    probe = keras.Model(model.inputs[0], {name: model.get_layer(name).output for name in names})
    outputs = probe(IMAGES, training=False)
    return [np.asarray(outputs[name], np.float64) for name in names]


def compiled(distiller: Distiller, rate: float = 0.05) -> Distiller:
    distiller.compile(
        keras.optimizers.SGD(rate),
        "sparse_categorical_crossentropy",
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return distiller


def evaluate(distiller: Distiller) -> dict[str, float]:
    return dict(compiled(distiller).evaluate(IMAGES, LABELS, batch_size=8, verbose=0, return_dict=True))


@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize("features", [(), ("relu", "conv")])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_loss_by_hand(weight: float, features: tuple[str, ...], decay: float) -> None:
    """The loss of a regularizer counts once, whatever the weight."""
    student, teacher = make_model(1, decay=decay), make_model(2, decay=decay)
    distillation = Distillation(weight=weight, features=features, feature_weight=0.3)
    loss = evaluate(Distiller(student, teacher, distillation))["loss"]
    (p, *own), (t, *theirs) = taps(student, "head", *features), taps(teacher, "head", *features)
    expected = weight * (t * np.log(t / p)).sum(axis=-1).mean()
    expected += (1 - weight) * -np.log(p[np.arange(8), LABELS]).mean()
    for a, b in zip(own, theirs, strict=True):
        expected += weight * 0.3 * ((a - b) ** 2).sum() / (b**2).sum()
    expected += decay * (student.get_layer("conv").kernel.numpy() ** 2).sum()
    assert loss == pytest.approx(expected, rel=1e-4)


def test_the_agreement_by_hand() -> None:
    student, teacher = make_model(1), make_model(2)
    (p,), (t,) = taps(student, "head"), taps(teacher, "head")
    same = p.argmax(-1) == t.argmax(-1)
    assert 0 < same.mean() < 1
    logs = evaluate(Distiller(student, teacher, Distillation()))
    assert logs["agreement"] == pytest.approx(same.mean())
    assert logs["accuracy"] == pytest.approx((p.argmax(-1) == LABELS).mean())
    assert evaluate(Distiller(student, student, Distillation()))["agreement"] == 1


def test_compile_and_fit_train_the_student_in_place_and_leave_the_teacher() -> None:
    student, teacher = make_model(1), make_model(2)
    teacher.get_layer("conv").trainable = False
    flags = [layer.trainable for layer in teacher.layers]
    before, start = teacher.get_weights(), student.get_weights()
    distiller = compiled(Distiller(student, teacher, Distillation(features=())), rate=0.3)
    assert len(distiller.trainable_variables) == len(student.trainable_variables)
    history = distiller.fit(IMAGES, LABELS, batch_size=4, epochs=10, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] / 2
    assert set(distiller(IMAGES[:1])) == {"/head"}
    for a, b in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [layer.trainable for layer in teacher.layers] == flags
    assert teacher.trainable
    assert not np.array_equal(student.get_weights()[0], start[0])


def test_labels_count_only_with_a_weight_below_1() -> None:
    def trained(weight: float) -> list[np.ndarray]:
        """Return the kernel of the same student after a step on each of two sets of labels."""
        student, kernels = make_model(1), []
        start = student.get_weights()
        distiller = compiled(Distiller(student, make_model(2), Distillation(weight=weight)))
        for labels in (LABELS, 2 - LABELS):
            student.set_weights(start)
            distiller.fit(IMAGES, labels, batch_size=8, epochs=1, verbose=0, shuffle=False)
            kernels.append(np.array(student.get_layer("head").kernel))
        assert not np.array_equal(kernels[0], make_model(1).get_layer("head").kernel)
        return kernels

    np.testing.assert_array_equal(*trained(1.0))
    assert not np.array_equal(*trained(0.5))


@pytest.mark.parametrize(
    ("teacher", "features", "message"),
    [
        (lambda: make_model(2, classes=4), (), r"outputs .*Received: \(None, 4\) and \(None, 3\)"),
        (lambda: make_model(2), ("relu", "attic", "cellar"), r"'network' has no layer.*Received: attic, cellar\."),
    ],
)
def test_what_does_not_fit(teacher: Any, features: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Distiller(make_model(1), teacher(), Distillation(features=features))


def other_images() -> keras.Model:
    image = keras.Input((8, 8, 1))
    return keras.Model(image, keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(image)))


def with_nan() -> keras.Model:
    model = make_model(2)
    model.get_layer("bn").gamma.assign([np.nan, 1.0])
    return model


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="odd")
        self.head = keras.layers.Dense(3, "softmax")

    def call(self, inputs: Any) -> Any:
        return self.head(keras.ops.mean(inputs, (1, 2)))


@pytest.mark.parametrize(
    ("teacher", "error", "message"),
    [
        (other_images, UserError, r"inputs .*Received: \(None, 8, 8, 1\) and \(None, 6, 6, 1\)"),
        (with_nan, UserError, r"1 of 2 numbers in bn/gamma of .* are not finite"),
        (Subclassed, UnsupportedModelError, r"no graph\. Received: Subclassed 'odd'\. Use a functional"),
    ],
)
def test_a_teacher_that_can_not_teach(teacher: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fine_tune(make_model(1), train_data, SELECTION, recipe(), teacher=teacher(), progress=False)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_teacher_of_logits_teaches_what_its_softmax_would(temperature: float) -> None:
    teacher = make_model(2)
    head = keras.layers.Dense(3, name="head")
    logits = keras.Model(teacher.input, head(teacher.layers[-2].output))
    head.set_weights(teacher.get_layer("head").get_weights())
    settings = recipe(epochs=1, distillation=Distillation(features=(), temperature=temperature))
    with_softmax, without = (
        fine_tune(make_model(1), train_data, SELECTION, settings, teacher=given, progress=False).history
        for given in (teacher, logits)
    )
    for one, other in zip(with_softmax, without, strict=True):
        assert other.selection_loss == pytest.approx(one.selection_loss, rel=1e-4)
        assert other.selection_agreement == one.selection_agreement


def test_images_of_any_size_fit_a_fixed_one() -> None:
    image = keras.Input((None, None, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(image))
    teacher = keras.Model(image, keras.layers.Dense(3, "softmax")(x))
    assert 0 <= evaluate(Distiller(make_model(1), teacher, Distillation(features=())))["agreement"] <= 1


def test_a_feature_is_one_tensor() -> None:
    def twice() -> keras.Model:
        image, shared = keras.Input((6, 6, 1)), keras.layers.ReLU(name="shared")
        x = keras.layers.Flatten()(shared(keras.layers.Conv2D(2, 3)(shared(image))))
        return keras.Model(image, keras.layers.Dense(3, "softmax")(x), name="twice")

    with pytest.raises(UserError, match="Received: 'shared', a layer that the model 'twice' calls 2 times"):
        Distiller(twice(), twice(), Distillation(features=("shared",)))


def test_a_layer_that_another_model_calls_too_is_that_of_its_own() -> None:
    model = make_model(1)
    other = keras.Input((6, 6, 1))
    keras.Model(other, model.get_layer("conv")(other))
    assert evaluate(Distiller(model, make_model(1), Distillation(features=("conv",))))["loss"] == pytest.approx(0)


def test_a_distiller_is_not_registered_for_loading() -> None:
    assert keras.saving.get_registered_object("keras_qat>Distiller") is None


# --- fine_tune --------------------------------------------------------------------------------------------------------


def train_data(epoch: int) -> Any:
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).shuffle(8, seed=epoch).batch(4)


SELECTION = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4)


def recipe(**settings: Any) -> Recipe:
    common = {"optimizer": "sgd-momentum", "schedule": "constant", "learning_rate": 0.1, "epochs": 3}
    return Recipe(**{**common, "distillation": Distillation(features=()), "monitor": "loss", **settings})


def test_fine_tune_records_the_distance_and_the_agreement() -> None:
    student, teacher = make_model(1), make_model(2)
    tuned = fine_tune(student, train_data, SELECTION, recipe(), teacher=teacher, progress=False)
    assert tuned.best_epoch > 0
    (p,), (t,) = taps(tuned.model, "head"), taps(teacher, "head")
    best = tuned.history[tuned.best_epoch]
    assert best.selection_loss == pytest.approx((t * np.log(t / p)).sum(axis=-1).mean(), rel=1e-3)
    assert best.selection_agreement == pytest.approx((p.argmax(-1) == t.argmax(-1)).mean())
    assert best.selection_accuracy == pytest.approx((p.argmax(-1) == LABELS).mean())
    assert [record.selection_agreement is None for record in tuned.history] == [False] * 4
    assert type(tuned.model) is type(student)


def test_a_model_that_equals_its_teacher_is_kept() -> None:
    """Epoch 0 has loss 0, so the result is the model as given."""
    model = make_model(1)
    tuned = fine_tune(model, train_data, SELECTION, recipe(), teacher=model, progress=False)
    assert (tuned.best_epoch, tuned.history[0].selection_agreement) == (0, 1.0)


def test_a_recipe_that_distills_needs_a_teacher_and_one_that_does_not_takes_none() -> None:
    with pytest.raises(UserError, match=r"Received: teacher=None.*distillation=None"):
        fine_tune(make_model(1), train_data, SELECTION, recipe(), progress=False)
    settings = recipe(distillation=None, epochs=1)
    tuned = fine_tune(make_model(1), train_data, SELECTION, settings, teacher=make_model(2), progress=False)
    assert tuned.history[0].selection_agreement is None
    (p,) = taps(make_model(1), "head")
    assert tuned.history[0].selection_loss == pytest.approx(-np.log(p[np.arange(8), LABELS]).mean(), rel=1e-4)


def test_features_in_a_recipe() -> None:
    settings = recipe(distillation=Distillation(features=("relu",)), epochs=1)
    tuned = fine_tune(make_model(1), train_data, SELECTION, settings, teacher=make_model(2), progress=False)
    plain = fine_tune(make_model(1), train_data, SELECTION, recipe(epochs=1), teacher=make_model(2), progress=False)
    (own,), (theirs,) = taps(make_model(1), "relu"), taps(make_model(2), "relu")
    # The distance is relative within a batch, and the selection has two batches.
    halves = [(own[part], theirs[part]) for part in (slice(4), slice(4, 8))]
    distance = np.mean([((s - t) ** 2).sum() / (t**2).sum() for s, t in halves])
    assert tuned.history[0].selection_loss - plain.history[0].selection_loss == pytest.approx(distance, rel=1e-3)


# --- a custom loop ----------------------------------------------------------------------------------------------------


def quantized(mode: Any = "fixed") -> tuple[keras.Model, keras.Model]:
    model = make_model(2)
    placement = plan(trace(model).graph, "onnxruntime")
    ranges: Ranges = calibrate(model, placement, [IMAGES])
    return apply_placement(model, placement, ranges, range_mode=mode), model


@pytest.mark.parametrize("mode", ["fixed", "ema", "learned"])
def test_a_quantized_model_trains_in_a_custom_loop(mode: Any, tmp_path: Path) -> None:
    """The layers suffice; the tape, the optimizer and the loss are the user's."""
    model, teacher = quantized(mode)
    optimizer = keras.optimizers.Adam(0.003)
    ranges = [layer.amax for layer in model.layers if hasattr(layer, "amax")]
    before = [float(amax) for amax in ranges]

    @tf.function
    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            output = model(images, training=True)
            loss = distillation_loss(teacher(images, training=False), output, 2.0)
            loss += 0.1 * tf.reduce_mean(labels_loss(labels, output))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    losses = [float(step(tf.constant(IMAGES), tf.constant(LABELS))) for _ in range(30)]
    assert losses[-1] < losses[0]
    moved = [float(amax) != old for amax, old in zip(ranges, before, strict=True)]
    assert any(moved) == (mode != "fixed")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(IMAGES), model(IMAGES))


def test_a_quantized_model_trains_in_a_plain_fit() -> None:
    model, teacher = quantized("learned")
    history = compiled(Distiller(model, teacher, Distillation()), rate=0.01).fit(IMAGES, LABELS, epochs=3, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    model.compile("adam", "sparse_categorical_crossentropy")
    history = model.fit(IMAGES, LABELS, epochs=20, verbose=0).history["loss"]
    assert history[-1] < history[0]

"""Fine-tuning: what is trained, what is returned, and what isn't changed."""

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat import trace
from keras_qat.errors import DataError, UnsupportedModelError, UserError
from keras_qat.training import EpochRecord, FineTuned, FiniteLoss, Recipe, fine_tune, train_baseline
from keras_qat.training.cloning import clone

CLASSES = 3
LABELS: dict[str, Any] = {
    "distillation": None,
    "optimizer": "sgd-momentum",
    "monitor": "accuracy",
    "schedule": "constant",
    "batch_size": 16,
}
GENTLE = Recipe(**LABELS, learning_rate=0.05, epochs=2)


def make_data(count: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make noise of 8 by 8 pixels, with a bright corner in the channel of the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = rng.normal(0, 0.5, (count, 8, 8, 3)).astype("float32")
    for image, label in zip(images, labels, strict=True):
        image[:3, :3, label] += 2
    return images, labels


def train_data(epoch: int) -> Any:
    return tf.data.Dataset.from_tensor_slices(make_data()).shuffle(64, seed=epoch).batch(16)


SELECTION = tf.data.Dataset.from_tensor_slices(make_data(30, seed=1)).batch(16)


def make_model(*, last: str = "softmax", dropout: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bn")(x))
    x = keras.layers.Dropout(dropout)(keras.layers.Flatten()(x))
    model = keras.Model(image, keras.layers.Dense(CLASSES, last, name="head")(x))
    model.get_layer("bn").set_weights([np.full(4, value, "float32") for value in (1.1, 0.1, 0.2, 0.8)])
    return model


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.fixture(scope="module")
def gentle() -> FineTuned:
    return fine_tune(make_model(), train_data, SELECTION, GENTLE, progress=False)


def test_it_learns_and_leaves_the_callers_model_alone() -> None:
    model = make_model()
    model.get_layer("conv").trainable = False
    before, config = model.get_weights(), model.get_config()
    tuned = fine_tune(model, train_data, SELECTION, GENTLE, progress=False)

    assert isinstance(tuned, FineTuned)
    assert same(model.get_weights(), before)
    assert model.get_config() == config
    assert not model.compiled
    assert tuned.history[-1].selection_accuracy > tuned.history[0].selection_accuracy
    assert [r.epoch for r in tuned.history] == [0, 1, 2]
    assert [r.learning_rate for r in tuned.history] == [None, pytest.approx(0.05), pytest.approx(0.05)]
    # The flags are those given, and layers frozen by the caller or by the recipe didn't change.
    assert [layer.trainable for layer in tuned.model.layers] == [layer.trainable for layer in model.layers]
    assert tuned.model.get_layer("bn").trainable
    assert same(tuned.model.get_layer("bn").get_weights(), model.get_layer("bn").get_weights())
    assert same(tuned.model.get_layer("conv").get_weights(), model.get_layer("conv").get_weights())
    assert not same(tuned.model.get_layer("head").get_weights(), model.get_layer("head").get_weights())


def test_the_record_agrees_with_an_evaluation_by_hand(gentle: FineTuned) -> None:
    images, labels = make_data(30, seed=1)
    output = np.asarray(gentle.model(images))
    best = gentle.history[gentle.best_epoch]
    assert best.selection_accuracy == pytest.approx(np.mean(output.argmax(-1) == labels))
    assert best.selection_loss == pytest.approx(-np.log(output[np.arange(30), labels]).mean(), rel=1e-4)


def test_it_is_the_plain_gradient_descent_that_it_says() -> None:
    model = make_model()
    recipe = Recipe(**{**LABELS, "optimizer": "sgd"}, learning_rate=0.01, epochs=1, steps_per_epoch=1)
    tuned = fine_tune(model, train_data, SELECTION, recipe, progress=False)
    images, labels = next(iter(train_data(1)))
    kernel = model.get_layer("head").kernel
    with tf.GradientTape() as tape:
        # Inference mode: BatchNorm is frozen, and there is no dropout.
        picked = tf.gather(model(images, training=False), labels, batch_dims=1)
        loss = -tf.reduce_mean(tf.math.log(picked))
    stepped = kernel.numpy() - 0.01 * tape.gradient(loss, kernel.value).numpy()
    assert tuned.best_epoch == 1
    np.testing.assert_allclose(tuned.model.get_layer("head").kernel.numpy(), stepped, atol=1e-6)


def test_batch_norm_moves_when_asked_and_no_progress_is_silence(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe(**LABELS, learning_rate=0.05, epochs=1, batch_norm="train")
    model = make_model()
    tuned = fine_tune(model, train_data, SELECTION, recipe, progress=False)
    assert capsys.readouterr() == ("", "")
    assert tuned.best_epoch == 1
    assert not same(tuned.model.get_layer("bn").get_weights(), model.get_layer("bn").get_weights())


def test_never_worse_than_given(gentle: FineTuned) -> None:
    good = gentle.model
    wrong = lambda epoch: train_data(epoch).map(lambda x, y: (x, (y + 1) % CLASSES))  # noqa: E731
    tuned = fine_tune(good, wrong, SELECTION, GENTLE, progress=False)
    assert tuned.best_epoch == 0
    assert tuned.history[-1].selection_accuracy < tuned.history[0].selection_accuracy
    assert same(tuned.model.get_weights(), good.get_weights())


@keras.saving.register_keras_serializable(package="keras_qat_tests")
class Counted(keras.layers.Layer):
    """Counts how often it is traced. Its non-trainable weight is created before its trainable one."""

    traced: list[bool] = []  # noqa: RUF012

    def build(self, shape: Any) -> None:  # noqa: ARG002
        self.amax = self.add_weight(name="amax", shape=(), initializer="ones", trainable=False)
        self.gain = self.add_weight(name="gain", shape=(), initializer="ones")

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not keras.utils.is_keras_tensor(inputs) and not tf.executing_eagerly():
            self.traced.append(bool(training))
        return inputs * self.gain / self.amax


def test_the_step_is_compiled_once_and_custom_state_is_copied() -> None:
    image = keras.Input((8, 8, 3))
    x = Counted(name="counted")(image)
    model = keras.Model(image, keras.layers.Dense(CLASSES, "softmax")(keras.layers.Flatten()(x)))
    model.get_layer("counted").set_weights([np.float32(1.5), np.float32(2.5)])
    model.get_layer("counted").trainable = False
    Counted.traced.clear()
    copied = clone(model).get_layer("counted")
    assert (float(copied.amax), float(copied.gain)) == (float(model.get_layer("counted").amax), 1.5)
    trace(model)  # reads the layer's call, once for each layer
    Counted.traced.clear()
    recipe = Recipe(**LABELS, epochs=4)
    fine_tune(model, train_data, SELECTION, recipe, progress=False)
    few = list(Counted.traced)
    Counted.traced.clear()
    fine_tune(model, train_data, SELECTION, Recipe(**LABELS, epochs=1), progress=False)
    assert few == Counted.traced != []


def test_steps_per_epoch_limits_even_endless_data_and_short_data_is_no_trouble() -> None:
    seen: list[int] = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))  # noqa: ARG005
    endless = lambda epoch: train_data(epoch).repeat()  # noqa: E731
    for steps, data, taken in ((3, endless, 3), (9, train_data, 4)):
        recipe = Recipe(**LABELS, epochs=2, steps_per_epoch=steps)
        seen.clear()
        fine_tune(make_model(), data, SELECTION, recipe, progress=False, callbacks=[count])
        assert len(seen) == 2 * taken


def test_data_of_unknown_length_is_counted() -> None:
    def unknown(epoch: int) -> Any:
        return train_data(epoch).filter(lambda x, y: True)  # noqa: ARG005

    assert int(unknown(1).cardinality()) == tf.data.UNKNOWN_CARDINALITY
    selection = SELECTION.filter(lambda x, y: True)  # noqa: ARG005
    recipe = Recipe(
        **{**LABELS, "schedule": "piecewise"}, epochs=2, learning_rate=0.1
    )  # warm-up over one epoch of 4 steps: 0, 1/4, 2/4, 3/4
    tuned = fine_tune(make_model(), unknown, selection, recipe, progress=False)
    assert tuned.history[1].learning_rate == pytest.approx(0.075)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    bad = lambda epoch: train_data(epoch).map(lambda x, y: (x * (np.nan if epoch == 2 else 1), y))  # noqa: E731
    with pytest.raises(UserError, match=r"epoch 2, step 1.*learning rate 0\.05.*Lower"):
        fine_tune(make_model(), bad, SELECTION, GENTLE, progress=False)


def test_the_step_is_counted_from_the_epochs_first_though_an_earlier_run_took_some() -> None:
    guard = FiniteLoss(first_step=10)
    guard.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=2e-3)))
    guard.on_epoch_begin(1)
    guard.on_train_batch_end(0, {"loss": 1.0})
    for loss in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=rf"epoch 2, step 13\. Received: loss={loss} at .* 0\.002\. Lower.*finite"):
            guard.on_train_batch_end(2, {"loss": loss})


def test_no_memory_is_explained() -> None:
    def full(batch: int, logs: Any) -> None:  # noqa: ARG001
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    callback = keras.callbacks.LambdaCallback(on_train_batch_begin=full)
    recipe = Recipe(**{**LABELS, "batch_size": 64}, epochs=2)  # the data has batches of 16
    with pytest.raises(UserError, match=r"batch_size=16.*batch_size=8 with accumulate=2"):
        fine_tune(make_model(), train_data, SELECTION, recipe, progress=False, callbacks=[callback])


class Images:
    """Like the package's image sets: not a dataset, but an object that makes one."""

    def batches(self, size: int) -> Any:
        return size


def broken(layer: str) -> keras.Model:
    model = make_model()
    kernel = model.get_layer(layer).kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    return model


@pytest.mark.parametrize(
    ("model", "train", "error", "message"),
    [
        (make_model, lambda _: train_data(1).repeat(), UserError, "never ends"),
        (make_model, lambda _: train_data(1).take(0), DataError, "no batch"),
        (lambda: broken("conv"), train_data, UserError, r"numbers in conv/kernel of \w+ are not finite"),
        (make_model, lambda _: Images(), UserError, r"Received: Images\. Use its `\.batches\(64\)`"),
        (make_model, Images(), UserError, r"lambda epoch: images\.batches\(64, shuffle_seed=epoch\)"),
    ],
)
def test_wrong_inputs(model: Any, train: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fine_tune(model(), train, SELECTION, GENTLE, progress=False)


def test_an_endless_selection_is_told_what_helps() -> None:
    with pytest.raises(UserError, match=r"selection data never ends.*`dataset\.take\(n\)`"):
        fine_tune(make_model(), train_data, SELECTION.repeat(), GENTLE, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: tf.one_hot(y, CLASSES), r"float32 of shape \(16, 3\).*tf\.argmax"),
        (lambda y: tf.one_hot(y, CLASSES, dtype=tf.int32), "argmax"),
        (lambda y: y + 1, r"Received: labels from 1 to 3\. .*subtract 1"),
        (lambda y: y - 1, "Received: labels from -1 to 1.*class for each"),
        (lambda y: 2 * y, "Received: labels from 0 to 4"),
        (lambda y: tf.cast(y, tf.float32), r"float32 of shape \(16,\).*tf\.cast"),
    ],
)
@pytest.mark.parametrize("where", ["training", "selection"])
def test_labels_that_are_no_classes(change: Any, message: str, where: str) -> None:
    def changed(data: Any, what: str) -> Any:
        return data.map(lambda x, y: (x, change(y))) if what == where else data

    with pytest.raises(UserError, match=rf"labels of the {where} data.*{message}"):
        fine_tune(
            make_model(),
            lambda epoch: changed(train_data(epoch), "training"),
            changed(SELECTION, "selection"),
            GENTLE,
            progress=False,
        )


def test_labels_in_a_column_are_fine(gentle: FineTuned) -> None:
    column = lambda epoch: train_data(epoch).map(lambda x, y: (x, y[:, None]))  # noqa: E731
    tuned = fine_tune(make_model(), column, SELECTION, GENTLE, progress=False)
    assert tuned.history[1].train_loss == gentle.history[1].train_loss


@pytest.mark.parametrize("where", ["training", "selection"])
def test_batches_without_labels(where: str) -> None:
    bare = {"training": train_data(1), "selection": SELECTION}
    bare[where] = bare[where].map(lambda x, y: x)  # noqa: ARG005
    with pytest.raises(UserError, match=r"The images have no labels, and the recipe needs them\. .*or give labels"):
        fine_tune(make_model(), lambda _: bare["training"], bare["selection"], GENTLE, progress=False)


def test_gradients_that_are_never_applied() -> None:
    fine_tune(make_model(), train_data, SELECTION, Recipe(**LABELS, epochs=2, accumulate=8), progress=False)
    with pytest.raises(UserError, match=r"8 steps of the whole run.*Received: accumulate=9"):
        fine_tune(make_model(), train_data, SELECTION, Recipe(**LABELS, epochs=2, accumulate=9), progress=False)


def test_nothing_to_train() -> None:
    model = make_model()
    model.trainable = False
    with pytest.raises(UserError, match="no weight to train"):
        fine_tune(model, train_data, SELECTION, GENTLE, progress=False)


def test_a_model_without_a_graph_is_refused() -> None:
    class Odd(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.head = keras.layers.Dense(CLASSES, "softmax")

        def call(self, inputs: Any) -> Any:
            return self.head(keras.ops.mean(inputs, (1, 2)))

    model = Odd()
    model(np.zeros((1, 8, 8, 3), "float32"))
    with pytest.raises(UnsupportedModelError, match="Received: Odd"):
        fine_tune(model, train_data, SELECTION, GENTLE, progress=False)


def test_baseline_learns_on_a_copy_and_keeps_the_models_own_momentum() -> None:
    model = make_model()
    before = model.get_weights()
    trained = train_baseline(model, train_data, SELECTION, epochs=5, learning_rate=0.02, progress=False)
    images, labels = make_data(30, seed=1)
    assert np.mean(np.asarray(trained(images)).argmax(-1) == labels) > 0.85
    assert same(model.get_weights(), before)
    assert trained.get_layer("bn").momentum == 0.99


def test_a_line_an_epoch_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    record: EpochRecord = fine_tune(make_model(), train_data, SELECTION, GENTLE).history[1]
    captured = capsys.readouterr()
    text = captured.err.splitlines()
    assert (captured.out, len(text)) == ("", 2)
    assert text[0].startswith(f"epoch 1/2: loss {record.train_loss:.4f}")
    assert f"selection loss {record.selection_loss:.4f}" in text[0]

"""Ranges of activations in training: fixed, a moving average, or learned (LSQ); and their freezing."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat.layers import FakeQuantize, QuantizedDense
from keras_qat.training import FreezeRanges, Recipe, fine_tune
from keras_qat.types import QuantSpec, RangeMode

AMAX = 2.0


def built(mode: RangeMode, amax: float = AMAX) -> FakeQuantize:
    layer = FakeQuantize(QuantSpec(), amax, mode, name="edge")
    layer.build((None, 3))
    return layer


def make_data(count: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    return rng.normal(labels[:, None] * 2.0 - 1.0, 1.0, (count, 3)).astype("float32"), labels


def make_model(mode: RangeMode = "fixed", amax: float = AMAX) -> keras.Model:
    keras.utils.set_random_seed(2)
    image = keras.Input((3,))
    x = FakeQuantize(QuantSpec(), amax, mode, name="edge")(image)
    x = QuantizedDense(2, weight_spec=QuantSpec(narrow=True, axis=1), name="head")(x)
    return keras.Model(image, keras.layers.Softmax()(x))


def range_of(model: keras.Model) -> float:
    return float(model.get_layer("edge").amax)


# --- the layer --------------------------------------------------------------------------------------------------------


def test_a_moving_average_follows_the_batches_of_training_alone() -> None:
    layer, expected = built("ema"), np.float64(AMAX)
    for largest in (5.0, 0.1, 3.0):
        x = np.array([[0.0, -largest, largest / 2]], "float32")
        before = float(layer.amax)
        layer(x, training=False)
        layer(x)
        assert float(layer.amax) == before
        layer(x, training=True)
        expected = 0.99 * expected + 0.01 * largest
        assert float(layer.amax) == pytest.approx(expected, rel=1e-6)


def test_a_frozen_layer_does_not_follow_the_batches() -> None:
    layer = built("ema")
    layer.trainable = False
    layer(np.array([[50.0]], "float32"), training=True)
    assert float(layer.amax) == AMAX


def test_the_batch_that_moves_the_range_is_rounded_with_the_new_one() -> None:
    layer = built("ema", 1.0)
    assert np.asarray(layer(np.array([[101.0]], "float32"), training=True)).max() == pytest.approx(2.0)


@pytest.mark.parametrize("mode", ["fixed", "ema", "learned"])
def test_only_a_learned_range_is_trained(mode: RangeMode) -> None:
    layer = built(mode)
    assert len(layer.trainable_weights) == (mode == "learned")
    assert len(layer.weights) == 1
    x = tf.constant([[1.0, 9.0, -9.0]])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.square(layer(x, training=True)))
    gradient = tape.gradient(total, layer.amax.value)
    assert (gradient is not None) == (mode == "learned")
    if mode == "fixed":
        assert float(layer.amax) == AMAX


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'edge'.*Received: 'free'.*fixed, ema, learned"):
        built("free")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["fixed", "ema", "learned"])
def test_the_mode_and_the_range_survive_saving(mode: RangeMode, tmp_path: Path) -> None:
    model = make_model(mode)
    assert model.get_layer("edge").get_config()["range_mode"] == mode
    model.get_layer("edge").amax.assign(1.25)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (again.get_layer("edge").range_mode, range_of(again)) == (mode, 1.25)
    assert len(again.trainable_variables) == 2 + (mode == "learned")
    again.load_weights(tmp_path / "model.keras")
    # In an older file without a mode, ranges are fixed.
    config = model.get_layer("edge").get_config()
    del config["range_mode"]
    assert FakeQuantize.from_config(config).range_mode == "fixed"


def test_a_frozen_range_stays() -> None:
    for mode in ("ema", "learned"):
        layer = built(mode)
        layer.freeze_range()
        layer(np.full((1, 3), 50.0, "float32"), training=True)
        assert (float(layer.amax), layer.trainable_weights, layer.range_mode) == (AMAX, [], "fixed")


def test_a_range_never_turns_negative() -> None:
    """A negative range would round all numbers to zero, get no gradient, and never recover."""
    model = make_model("learned", 0.01)
    optimizer = keras.optimizers.SGD(1.0)
    amax = model.get_layer("edge").amax
    optimizer.build([amax])
    optimizer.apply([tf.constant(5.0)])
    assert 0 < float(amax) < 1e-20
    x, labels = make_data()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, model(x, training=True)))
    gradient = float(tape.gradient(loss, amax.value))
    assert np.isfinite(gradient)
    assert gradient != 0


# --- training ---------------------------------------------------------------------------------------------------------


def ranges_by_epoch(model: keras.Model, **settings: Any) -> tuple[list[float], Any]:
    """Return the range after each of 3 epochs, and the result of the run."""
    images, labels = make_data()
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    after: list[float] = []

    class Peek(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            after.append(range_of(self.model))

    common = {"optimizer": "sgd-momentum", "schedule": "constant", "learning_rate": 0.1, "epochs": 3}
    recipe = Recipe(**{**common, "distillation": None, **settings})
    return after, fine_tune(model, lambda _: data, data, recipe, progress=False, callbacks=[Peek()])


def test_a_fixed_range_stays_and_a_moving_one_is_the_average_by_hand() -> None:
    assert ranges_by_epoch(make_model())[0] == [AMAX] * 3
    expected, by_hand = np.float64(AMAX), []
    for _ in range(3):
        for batch in np.split(make_data()[0], 4):
            expected = 0.99 * expected + 0.01 * np.abs(batch).max()
        by_hand.append(expected)
    assert ranges_by_epoch(make_model(), range_mode="ema")[0] == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("mode", ["ema", "learned"])
def test_the_ranges_freeze_after_their_epochs(mode: RangeMode) -> None:
    free, _ = ranges_by_epoch(make_model(), range_mode=mode, learning_rate=1e-4)
    frozen, _ = ranges_by_epoch(make_model(), range_mode=mode, learning_rate=1e-4, freeze_ranges_after=1)
    assert len(set(free)) == 3
    assert frozen == free[:1] * 3


def test_what_is_returned_has_fixed_ranges_and_the_learned_amax() -> None:
    after, tuned = ranges_by_epoch(make_model("learned"), range_mode="learned", learning_rate=0.01)
    assert tuned.best_epoch > 0
    assert range_of(tuned.model) == after[tuned.best_epoch - 1] != AMAX
    assert tuned.model.get_layer("edge").range_mode == "fixed"
    assert len(tuned.model.trainable_variables) == 2


def test_a_range_that_is_too_small_learns_to_be_larger() -> None:
    """With so small a range only the sign is left, and the loss of the frozen head falls if the range grows."""
    model = make_model(amax=0.2)
    model.get_layer("head").set_weights([np.array([[-1, 1]] * 3, "float32"), np.zeros(2, "float32")])
    model.get_layer("head").trainable = False
    after, tuned = ranges_by_epoch(model, range_mode="learned", learning_rate=2e-5)
    assert after[-1] > 1.5 * 0.2
    assert tuned.history[-1].selection_loss < tuned.history[0].selection_loss


def test_a_layer_that_the_caller_froze_keeps_its_range() -> None:
    model = make_model()
    model.get_layer("edge").trainable = False
    assert ranges_by_epoch(model, range_mode="learned")[0] == [AMAX] * 3


@pytest.mark.parametrize("mode", ["ema", "learned"])
def test_freeze_ranges_in_a_fit_of_your_own(mode: RangeMode) -> None:
    images, labels = make_data()
    after: list[float] = []
    model = make_model(mode)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    peek = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: after.append(range_of(model)))  # noqa: ARG005
    before = model.get_layer("head").kernel.numpy()
    model.fit(images, labels, epochs=4, batch_size=8, verbose=0, callbacks=[FreezeRanges(2), peek])
    assert len(set(after)) == 2
    assert after[1] == after[2] == after[3]
    assert int(model.optimizer.iterations) == 16
    assert not np.array_equal(before, model.get_layer("head").kernel.numpy())

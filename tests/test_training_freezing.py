"""Freezing batch norms and ranges in the middle of a run, which must not disturb the rest."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat.training import FreezeBatchNorm, Recipe, fine_tune
from keras_qat.training.optimizers import dump_optimizer, load_optimizer

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 16)
IMAGES = RNG.normal(LABELS[:, None] - 0.5, 1.0, (16, 3)).astype("float32")


def make_model() -> keras.Model:
    keras.utils.set_random_seed(4)
    image = keras.Input((3,))
    # No bias: before a batch norm, its gradient would be nothing but rounding errors, which Adam scales up.
    x = keras.layers.Dense(4, use_bias=False, name="first")(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9, name="bn")(x))
    return keras.Model(image, keras.layers.Dense(2, "softmax", name="last")(x))


OPTIMIZERS: dict[str, Any] = {
    "sgd-momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "schedule": lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 12), momentum=0.9),
    "accumulating": lambda: keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=3),
}


def by_loop(optimizer: Any, epochs: int, frozen_from: int) -> keras.Model:
    """Train as the callback should: with one optimizer throughout, and without the batch norm's gradients."""
    model = make_model()
    optimizer.build(model.trainable_variables)
    bn = model.get_layer("bn")
    kept = []
    for epoch in range(epochs):
        if epoch == frozen_from:
            kept = bn.get_weights()
            bn.trainable = False
        for x, y in zip(np.split(IMAGES, 4), np.split(LABELS, 4), strict=True):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x, training=True)))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
    if kept:
        bn.set_weights(kept)
    return model


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rest_trains_on_as_if_nothing_had_happened(name: str) -> None:
    """The optimizer's moments and its step count carry over."""
    model = make_model()
    model.compile(OPTIMIZERS[name](), "sparse_categorical_crossentropy", jit_compile=False)
    after: list[list[np.ndarray]] = []
    peek = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: after.append(model.get_layer("bn").get_weights())  # noqa: ARG005
    )
    model.fit(IMAGES, LABELS, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[FreezeBatchNorm(1), peek])
    for array, first, initial in zip(after[2], after[0], make_model().get_layer("bn").get_weights(), strict=True):
        np.testing.assert_array_equal(array, first)
        assert not np.array_equal(array, initial)
    expected = by_loop(OPTIMIZERS[name](), 3, 1)
    for array, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(array, other, atol=2e-5)
    assert int(model.optimizer._iterations) == 12
    assert type(model.optimizer) is type(OPTIMIZERS[name]())


def test_what_the_user_left_out_of_weight_decay_stays_so() -> None:
    model = make_model()
    optimizer = keras.optimizers.AdamW(1e-9, weight_decay=1e6)
    optimizer.exclude_from_weight_decay(var_list=[model.get_layer("first").kernel], var_names=["bias"])
    model.compile(optimizer, "sparse_categorical_crossentropy")
    before = make_model()
    model.fit(IMAGES, LABELS, batch_size=16, epochs=2, verbose=0, callbacks=[FreezeBatchNorm(1)])

    def moved(layer: str, index: int) -> float:
        old, new = (np.asarray(m.get_layer(layer).get_weights()[index]) for m in (before, model))
        return float(np.abs(new - old).max())

    assert moved("first", 0) < 1e-6
    assert moved("last", 0) > 1e-4
    # Weight decay still applies to 1D variables that the user didn't exclude.
    assert moved("bn", 0) > 1e-4


def test_in_a_recipe() -> None:
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4)
    norms: list[list[np.ndarray]] = []
    heads: list[np.ndarray] = []

    class Peek(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            norms.append(self.model.get_layer("bn").get_weights())
            heads.append(self.model.get_layer("last").kernel.numpy())

    recipe = Recipe(
        distillation=None,
        optimizer="sgd-momentum",
        schedule="constant",
        learning_rate=0.1,
        epochs=3,
        batch_norm="freeze_after=1",
    )
    tuned = fine_tune(make_model(), lambda _: data, data, recipe, progress=False, callbacks=[Peek()])
    for first, second, third in zip(*norms, strict=True):
        np.testing.assert_array_equal(second, first)
        np.testing.assert_array_equal(third, first)
    expected = by_loop(OPTIMIZERS["sgd-momentum"](), 3, 1)
    np.testing.assert_allclose(heads[-1], expected.get_layer("last").kernel.numpy(), atol=2e-5)
    assert tuned.model.get_layer("bn").trainable


def test_nothing_to_freeze_leaves_the_step_alone() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    optimizer = model.optimizer
    model.fit(IMAGES, LABELS, epochs=2, verbose=0, callbacks=[FreezeBatchNorm(1)])
    assert model.optimizer is optimizer


def test_layers_of_one_name_in_two_inner_models_keep_their_own_state() -> None:
    """The variables of both layers have the same path."""

    def inner() -> keras.Model:
        image = keras.Input((3,))
        return keras.Model(image, keras.layers.Dense(3, name="dense")(image))

    image = keras.Input((3,))
    model = keras.Model(image, inner()(inner()(image)))
    paths = [variable.path for variable in model.variables]
    assert len(set(paths)) < len(paths)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    optimizer.apply([tf.fill(v.shape, float(i + 1)) for i, v in enumerate(model.trainable_variables)])
    other = keras.optimizers.SGD.from_config(optimizer.get_config())
    other.build(model.trainable_variables)
    load_optimizer(other, dump_optimizer(optimizer))
    for variable, copied in zip(optimizer.variables, other.variables, strict=True):
        np.testing.assert_array_equal(variable, copied)


def test_a_state_that_lacks_a_variable_is_refused_unless_it_may() -> None:
    model = make_model()
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    state = dump_optimizer(optimizer, model.variables)
    missing = next(path for path in state if path.endswith("_momentum"))
    del state[missing]
    load_optimizer(optimizer, state, model.variables, partial=True)
    with pytest.raises(KeyError, match="momentum"):
        load_optimizer(optimizer, state, model.variables)

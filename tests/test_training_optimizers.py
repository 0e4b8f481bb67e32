"""Weight decay, clipping, accumulation, smoothing and precision, each compared with a step computed by hand."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat.layers import FakeQuantize, QuantizedConv2D, QuantizedDense, QuantizedDepthwiseConv2D
from keras_qat.training import Distillation, FineTuned, Recipe, fine_tune
from keras_qat.types import QuantSpec

WEIGHTS = QuantSpec(narrow=True)
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 32)
IMAGES = RNG.normal(LABELS[:, None, None, None] - 0.5, 1.0, (32, 4, 4, 2)).astype("float32")


def make_model(head: str = "softmax") -> keras.Model:
    keras.utils.set_random_seed(5)
    image = keras.Input((4, 4, 2))
    x = FakeQuantize(QuantSpec(), 3.0, name="edge")(image)
    x = QuantizedConv2D(3, 3, weight_spec=WEIGHTS, name="conv")(x)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = QuantizedDepthwiseConv2D(2, weight_spec=WEIGHTS, name="depthwise")(x)
    x = QuantizedDense(2, weight_spec=WEIGHTS, name="dense")(keras.layers.Flatten()(x))
    return keras.Model(image, keras.layers.Activation(head, name="output")(x))


class Trained(keras.callbacks.Callback):
    """Records the variables of the model at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[dict[str, np.ndarray]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.epochs.append({variable.path: variable.numpy() for variable in self.model.variables})


def train(batch: int = 8, model: keras.Model | None = None, **settings: Any) -> tuple[dict[str, np.ndarray], FineTuned]:
    """Fine-tune for one epoch without shuffling, and return the trained variables and the result."""
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(batch)
    common: dict[str, Any] = {"optimizer": "sgd", "schedule": "constant", "learning_rate": 0.1, "epochs": 1}
    recipe = Recipe(**{**common, "distillation": None, "batch_size": batch, **settings})
    trained = Trained()
    model = model or make_model()
    tuned = fine_tune(model, lambda _: data, data, recipe, teacher=make_model(), progress=False, callbacks=[trained])
    return trained.epochs[-1], tuned


def initial() -> dict[str, np.ndarray]:
    return {variable.path: variable.numpy() for variable in make_model().variables}


@pytest.mark.parametrize("optimizer", ["sgd", "sgd-momentum", "adam"])
def test_weight_decay_pulls_kernels_alone(optimizer: str) -> None:
    """The rate is so small that gradients have no effect, and the decay so large that a step halves a kernel."""
    moved, _ = train(
        32, optimizer=optimizer, learning_rate=1e-9, weight_decay=0.5e9, batch_norm="train", range_mode="learned"
    )
    ratios = {}
    for path, before in initial().items():
        if "moving" not in path:
            ratios[path] = float(np.abs(moved[path]).sum() / max(np.abs(before).sum(), 1e-6))
    kernels = {path for path in ratios if path.endswith("kernel")}
    assert len(kernels) == 3
    assert {path: ratios[path] for path in kernels} == pytest.approx(dict.fromkeys(kernels, 0.5), rel=1e-4)
    assert ratios["edge/amax"] == pytest.approx(1, rel=1e-4)
    assert ratios["bn/gamma"] == pytest.approx(1, rel=1e-4)
    for path in ("bn/beta", "conv/bias", "dense/bias", "depthwise/bias"):
        assert np.abs(moved[path]).max() < 1e-4, path


def test_gradients_are_clipped_by_their_norm_together() -> None:
    def step(**settings: Any) -> np.ndarray:
        moved, _ = train(32, learning_rate=0.01, **settings)
        return np.concatenate([(moved[path] - before).ravel() for path, before in initial().items()])

    free, clipped = step(), step(clip_norm=0.05)
    assert np.linalg.norm(free) / 0.01 > 0.1
    assert np.linalg.norm(clipped) / 0.01 == pytest.approx(0.05, rel=1e-3)
    np.testing.assert_allclose(clipped / np.linalg.norm(clipped), free / np.linalg.norm(free), atol=1e-4)
    np.testing.assert_array_equal(step(clip_norm=100.0), free)


@pytest.mark.parametrize("settings", [{"optimizer": "sgd-momentum"}, {"optimizer": "adam", "learning_rate": 0.01}])
def test_accumulated_steps_equal_a_larger_batch(settings: dict[str, Any]) -> None:
    """Four batches of 4 equal one of 16, because frozen batch norms don't depend on the batch."""
    whole, straight = train(16, **settings)
    parts, tuned = train(4, accumulate=4, **settings)
    for path, array in whole.items():
        np.testing.assert_allclose(parts[path], array, atol=1e-5, err_msg=path)
    assert not np.array_equal(parts["dense/kernel"], initial()["dense/kernel"])
    assert tuned.history[1].selection_loss == pytest.approx(straight.history[1].selection_loss, rel=1e-4)


def test_the_record_of_an_accumulating_run_has_the_rate_of_its_last_step() -> None:
    """The last of 8 warm-up steps has 7/8 of the rate, however many steps are accumulated."""
    for accumulate in (1, 4):
        _, tuned = train(4, accumulate=accumulate, schedule="1.0@1", learning_rate=0.8)
        assert tuned.history[1].learning_rate == pytest.approx(0.7)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_labels_are_in_the_loss(smoothing: float) -> None:
    _, tuned = train(label_smoothing=smoothing)
    p = np.asarray(make_model()(IMAGES), np.float64)
    target = (1 - smoothing) * np.eye(2)[LABELS] + smoothing / 2
    assert tuned.history[0].selection_loss == pytest.approx(-(target * np.log(p)).sum(axis=-1).mean(), rel=1e-4)


@pytest.mark.parametrize(("distillation", "range_mode"), [(None, "fixed"), (Distillation(0.5), "learned")])
def test_mixed_precision(distillation: Distillation | None, range_mode: str) -> None:
    policies: dict[str, str] = {}
    types: set[str] = set()
    outputs: list[Any] = []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002
            model = getattr(self.model, "student", self.model)
            policies.update({layer.name: layer.dtype_policy.name for layer in model.layers})
            types.update(variable.dtype for variable in model.trainable_variables)
            outputs.append(model.get_layer("dense").output.dtype)

    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8)
    recipe = Recipe(
        optimizer="sgd-momentum",
        schedule="constant",
        learning_rate=0.02,
        epochs=2,
        training_precision="mixed_bfloat16",
        distillation=distillation,
        range_mode=range_mode,  # type: ignore[arg-type]
    )
    teacher = make_model()
    teacher.get_layer("dense").bias.assign([2.0, -2.0])
    tuned = fine_tune(make_model(), lambda _: data, data, recipe, teacher=teacher, progress=False, callbacks=[Look()])
    assert policies["conv"] == policies["dense"] == policies["edge"] == policies["bn"] == "mixed_bfloat16"
    assert policies["output"] == "float32"
    assert types == {"float32"}
    assert outputs[0] == "bfloat16"
    assert tuned.best_epoch > 0
    assert {layer.dtype_policy.name for layer in tuned.model.layers} == {"float32"}
    assert tuned.model(IMAGES).dtype == tf.float32
    plain = fine_tune(
        make_model(),
        lambda _: data,
        data,
        Recipe(**{**vars(recipe), "training_precision": "float32"}),
        teacher=teacher,
        progress=False,
    )
    assert tuned.history[2].selection_loss == pytest.approx(plain.history[2].selection_loss, rel=0.02)


def test_the_last_layer_is_in_float32_within_an_inner_model_too() -> None:
    from keras_qat.training.cloning import clone

    def inner(name: str, *layers: Any) -> keras.Model:
        return keras.Sequential([keras.Input((3,)), *layers], name=name)

    dense = keras.layers.Dense
    image = keras.Input((3,))
    head = inner("head", dense(2, name="logits"), keras.layers.Softmax(name="softmax"))
    model = keras.Model(image, head(inner("trunk", dense(3, name="trunk_dense"))(image)))
    copy = clone(model, precision="mixed_bfloat16")
    policies = {layer.name: layer.dtype_policy.name for layer in copy._flatten_layers()}
    expected = {"softmax": "float32", "logits": "mixed_bfloat16", "trunk_dense": "mixed_bfloat16"}
    assert policies.items() >= expected.items()
    sequential = clone(
        inner("alone", dense(3, name="first"), dense(2, "softmax", name="second")), precision="mixed_bfloat16"
    )
    assert [layer.dtype_policy.name for layer in sequential.layers] == ["mixed_bfloat16", "float32"]
    assert sequential(np.ones((1, 3), "float32")).dtype == tf.float32

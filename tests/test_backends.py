"""Calibration, repair and training on another backend of Keras: as on TensorFlow, to the rounding of float32."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat import Ranges, apply_placement, correct_bias, plan, trace
from keras_qat.calibration import OBSERVERS, calibrate_by_all, reestimate_batch_norms
from keras_qat.evaluation import diagnose
from keras_qat.layers import FakeQuantize
from keras_qat.training import Recipe, fine_tune
from keras_qat.types import QuantSpec

layers = keras.layers

IMAGES = np.random.default_rng(1).normal(0, 2, (24, 8, 8, 3)).astype("float32")
SMALL_IMAGES = np.random.default_rng(0).normal(0, 1, (12, 6, 6, 2)).astype("float32")
LABELS = np.random.default_rng(2).integers(0, 2, 12)
RECIPE = Recipe.from_dict(
    {
        "optimizer": "sgd-momentum",
        "schedule": "constant",
        "learning_rate": 1e-3,
        "epochs": 2,
        "distillation": {"weight": 0.7},
        "range_mode": "learned",
        "batch_norm": "freeze_after=1",
        "freeze_ranges_after": 1,
    }
)

_SCRIPT = """
import json
import sys
from pathlib import Path
import keras
import numpy as np
import tensorflow as tf
from interrupts import InterruptAt
from keras_qat import Ranges, apply_placement, correct_bias, plan, trace
from keras_qat.calibration import calibrate_by_all, reestimate_batch_norms
from keras_qat.errors import UserError
from keras_qat.evaluation import diagnose
from keras_qat.training import Distillation, Distiller, Recipe, fine_tune

folder, methods = Path(sys.argv[1]), sys.argv[2:]

def batches(images, labels):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)

# Calibration and repair.
model = keras.models.load_model(folder / "model.keras")
images = np.load(folder / "images.npy")
placement = plan(trace(model).graph, "onnxruntime")
for method, ranges in calibrate_by_all(model, placement, [images[:9], images[9:]], methods).items():
    ranges.save(folder / f"{method}.json")
quantized = apply_placement(model, placement, Ranges.load(folder / "mse.json"))
np.savez(
    folder / "repairs.npz",
    shifts=correct_bias(model, quantized, [images]).shifts["conv"],
    ratios=reestimate_batch_norms(model, quantized, [images]).ratios["conv"],
    alone=[tensor.alone for tensor in diagnose(model, quantized, [images]).tensors],
)

# A training that is cut off within an epoch, and goes on.
student, teacher = (keras.models.load_model(folder / f"{name}.keras") for name in ("student", "teacher"))
arrays = np.load(folder / "data.npz")
data = batches(arrays["images"], arrays["labels"])
recipe = Recipe.from_dict(json.loads((folder / "recipe.json").read_text()))

def train(callbacks):
    return fine_tune(student, lambda _: data, data, recipe, teacher=teacher, folder=folder / "run", progress=False,
                     keep_every_s=0, callbacks=callbacks)

try:
    train([InterruptAt(1)])
    raise SystemExit("not interrupted")
except KeyboardInterrupt:
    train([])

# Batches of a loop of one's own, with the teacher alone in the loss.
class Counted(Distiller):
    calls = 0

    def call(self, inputs, training=None):
        type(self).calls += 1
        return super().call(inputs, training)

distiller = Counted(student, teacher, Distillation())
distiller.compile("sgd", "sparse_categorical_crossentropy")
traced = []
for _ in range(3):
    distiller.train_on_batch(arrays["images"], arrays["labels"])
    traced.append(Counted.calls)
(folder / "traced.json").write_text(json.dumps(traced))

# The learning rate: on the bar, and where the loss is NaN.
image = keras.Input((3,))
model = keras.Model(image, keras.layers.Dense(2, "softmax")(image))

def step(factor):
    images = np.ones((8, 3), "float32")
    images[4:] *= factor
    selection = batches(np.ones((4, 3), "float32"), [0, 1] * 2)
    recipe = Recipe(distillation=None, optimizer="sgd", schedule="1@0,0.1@1", learning_rate=0.25, epochs=2)
    return fine_tune(model, lambda _: batches(images, [0, 1] * 4), selection, recipe)

step(1)
try:
    step(np.nan)
except UserError as error:
    print(error)
print(keras.backend.backend())
"""


@dataclass(frozen=True)
class OnJax:
    """What the script found: its files, and what it printed."""

    folder: Path
    out: str
    err: str


def _network() -> keras.Model:
    x = image = keras.Input((8, 8, 3), name="image")
    x = shortcut = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, padding="same", name="conv")(x))
    x = layers.MaxPooling2D(name="pool")(layers.ReLU(name="out")(layers.Add(name="add")([shortcut, x])))
    return keras.Model(image, layers.Dense(3, name="classes")(layers.Flatten()(x)), name="network")


def _trainee(seed: int, *, quantized: bool) -> keras.Model:
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((6, 6, 2), name="image")
    if quantized:
        x = FakeQuantize(QuantSpec(), 1.5, name="edge")(x)
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(3, 3, use_bias=False, name="conv")(x))
    return keras.Model(image, layers.Dense(2, "softmax", name="head")(layers.Flatten()(layers.ReLU()(x))))


@pytest.fixture(scope="module")
def models() -> dict[str, keras.Model]:
    return {"model": _network(), "student": _trainee(0, quantized=True), "teacher": _trainee(1, quantized=False)}


@pytest.fixture(scope="module")
def on_jax(models: dict[str, keras.Model], tmp_path_factory: pytest.TempPathFactory) -> OnJax:
    """A process of its own, since Keras has one backend: all that the tests compare."""
    pytest.importorskip("jax")
    folder = tmp_path_factory.mktemp("jax")
    for name, model in models.items():
        model.save(folder / f"{name}.keras")
    np.save(folder / "images.npy", IMAGES)
    np.savez(folder / "data.npz", images=SMALL_IMAGES, labels=LABELS)
    (folder / "recipe.json").write_text(json.dumps(RECIPE.to_dict()))
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "FORCE_COLOR": "1",
        "COLUMNS": "200",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = [sys.executable, "-W", "ignore", "-c", _SCRIPT, str(folder), *OBSERVERS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("jax")
    return OnJax(folder, done.stdout, done.stderr)


def test_ranges_and_repairs_on_jax_are_those_on_tensorflow(on_jax: OnJax, models: dict[str, keras.Model]) -> None:
    model = models["model"]
    placement = plan(trace(model).graph, "onnxruntime")
    for method, expected in calibrate_by_all(model, placement, [IMAGES[:9], IMAGES[9:]], tuple(OBSERVERS)).items():
        found = Ranges.load(on_jax.folder / f"{method}.json")
        assert list(found) == list(expected)
        for name in expected:
            assert found[name].amax == pytest.approx(expected[name].amax, rel=1e-5), (method, name)
            assert found[name].images == expected[name].images
    quantized = apply_placement(model, placement, Ranges.load(on_jax.folder / "mse.json"))
    repairs = np.load(on_jax.folder / "repairs.npz")
    shifts = correct_bias(model, quantized, [IMAGES]).shifts["conv"]
    ratios = reestimate_batch_norms(model, quantized, [IMAGES]).ratios["conv"]
    alone = [tensor.alone for tensor in diagnose(model, quantized, [IMAGES]).tensors]
    # A number on the border of two steps may be rounded the other way: one of some thousand.
    np.testing.assert_allclose(repairs["shifts"], shifts, atol=1e-4)
    np.testing.assert_allclose(repairs["ratios"], ratios, rtol=1e-3)
    np.testing.assert_allclose(repairs["alone"], alone, atol=0.05)


def test_fine_tuning_on_jax_is_that_on_tensorflow(
    on_jax: OnJax, models: dict[str, keras.Model], tmp_path: Path
) -> None:
    """With a teacher, learned ranges, batch norms and ranges that freeze, and there a restart within an epoch."""
    data = tf.data.Dataset.from_tensor_slices((SMALL_IMAGES, LABELS)).batch(4)
    tuned = fine_tune(
        models["student"], lambda _: data, data, RECIPE, teacher=models["teacher"], folder=tmp_path, progress=False
    )
    with np.load(on_jax.folder / "run" / "last.npz") as there, np.load(tmp_path / "last.npz") as here:
        assert set(there.files) == set(here.files)
        moved = float(here["model/0"]) - 1.5
        assert abs(moved) > 1e-4
        assert float(there["model/0"]) - 1.5 == pytest.approx(moved, rel=0.05)
        for name in set(here.files) - {"state"}:
            np.testing.assert_allclose(there[name], here[name], rtol=1e-3, atol=1e-4, err_msg=name)
    told = json.loads((on_jax.folder / "run" / "history.json").read_text())["epochs"]
    for record, other in zip(tuned.history, told, strict=True):
        for name in ("train_loss", "train_accuracy", "selection_loss", "selection_accuracy", "selection_agreement"):
            expected = getattr(record, name)
            fine = expected if expected is None else pytest.approx(expected, rel=1e-3)
            assert other[name] == fine, (record.epoch, name)


def test_the_learning_rate_is_known_on_jax(on_jax: OnJax) -> None:
    """On the bar on a terminal, and where a loss is NaN: within an epoch the variables have no values there."""
    assert "lr 2.50e-01" in on_jax.err
    assert "lr 2.50e-02" in on_jax.err
    assert "epoch 1, step 2. Received: loss=nan at learning rate 0.025" in on_jax.out


def test_a_step_of_a_distiller_is_traced_once_on_jax(on_jax: OnJax) -> None:
    first, *later = json.loads((on_jax.folder / "traced.json").read_text())
    assert later == [first, first]

"""Calibration and repair on another backend of Keras: the same as on TensorFlow, to the rounding of float32."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat import Ranges, apply_placement, calibrate, correct_bias, plan, trace
from keras_qat.calibration import OBSERVERS, reestimate_batch_norms
from keras_qat.evaluation import diagnose
from keras_qat.layers import FakeQuantize
from keras_qat.training import Recipe, fine_tune
from keras_qat.types import QuantSpec

layers = keras.layers

_SCRIPT = """
import sys
import keras
import numpy as np
from keras_qat import Ranges, apply_placement, calibrate, correct_bias, plan, trace
from keras_qat.calibration import reestimate_batch_norms
from keras_qat.evaluation import diagnose

folder, *methods = sys.argv[1:]
model = keras.models.load_model(f"{folder}/model.keras")
images = np.load(f"{folder}/images.npy")
placement = plan(trace(model).graph, "onnxruntime")
for method in methods:
    calibrate(model, placement, [images[:9], images[9:]], method=method).save(f"{folder}/{method}.json")
quantized = apply_placement(model, placement, Ranges.load(f"{folder}/mse.json"))
np.savez(
    f"{folder}/repairs.npz",
    shifts=correct_bias(model, quantized, [images]).shifts["conv"],
    ratios=reestimate_batch_norms(model, quantized, [images]).ratios["conv"],
    alone=[tensor.alone for tensor in diagnose(model, quantized, [images]).tensors],
)
print(keras.backend.backend())
"""


def test_ranges_and_repairs_on_jax_are_those_on_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    x = image = keras.Input((8, 8, 3), name="image")
    x = shortcut = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, padding="same", name="conv")(x))
    x = layers.MaxPooling2D(name="pool")(layers.ReLU(name="out")(layers.Add(name="add")([shortcut, x])))
    model = keras.Model(image, layers.Dense(3, name="classes")(layers.Flatten()(x)), name="network")
    images = np.random.default_rng(1).normal(0, 2, (24, 8, 8, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "ignore", "-c", _SCRIPT, str(tmp_path), *OBSERVERS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("jax")
    placement = plan(trace(model).graph, "onnxruntime")
    for method in OBSERVERS:
        expected = calibrate(model, placement, [images[:9], images[9:]], method=method)
        found = Ranges.load(tmp_path / f"{method}.json")
        assert list(found) == list(expected)
        for name in expected:
            assert found[name].amax == pytest.approx(expected[name].amax, rel=1e-5), (method, name)
            assert found[name].images == expected[name].images
    quantized = apply_placement(model, placement, Ranges.load(tmp_path / "mse.json"))
    repairs = np.load(tmp_path / "repairs.npz")
    shifts = correct_bias(model, quantized, [images]).shifts["conv"]
    ratios = reestimate_batch_norms(model, quantized, [images]).ratios["conv"]
    alone = [tensor.alone for tensor in diagnose(model, quantized, [images]).tensors]
    # A number on the border of two steps may be rounded the other way: one of some thousand.
    np.testing.assert_allclose(repairs["shifts"], shifts, atol=1e-4)
    np.testing.assert_allclose(repairs["ratios"], ratios, rtol=1e-3)
    np.testing.assert_allclose(repairs["alone"], alone, atol=0.05)


_TRAINING = """
import sys
import keras
import numpy as np
import tensorflow as tf
from pathlib import Path
from keras_qat.training import Recipe, fine_tune

folder = Path(sys.argv[1])
student, teacher = (keras.models.load_model(folder / f"{name}.keras") for name in ("student", "teacher"))
arrays = np.load(folder / "data.npz")
data = tf.data.Dataset.from_tensor_slices((arrays["images"], arrays["labels"])).batch(4)

class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt

def run(callbacks):
    recipe = Recipe.from_dict(SETTINGS)
    return fine_tune(student, lambda _: data, data, recipe, teacher=teacher, folder=folder / "run", progress=False,
                     keep_every_s=0, callbacks=callbacks)

try:
    run([Stop()])
    raise SystemExit("not interrupted")
except KeyboardInterrupt:
    run([])
print(keras.backend.backend())
"""


def test_fine_tuning_on_jax_is_that_on_tensorflow(tmp_path: Path) -> None:
    """With a teacher, learned ranges, batch norms and ranges that freeze, and there a restart within an epoch."""
    pytest.importorskip("jax")
    settings = {
        "optimizer": "sgd-momentum",
        "schedule": "constant",
        "learning_rate": 1e-3,
        "epochs": 2,
        "distillation": {"weight": 0.7},
        "range_mode": "learned",
        "batch_norm": "freeze_after=1",
        "freeze_ranges_after": 1,
    }
    models = []
    for seed, name in enumerate(("student", "teacher")):
        keras.utils.set_random_seed(seed)
        x = image = keras.Input((6, 6, 2), name="image")
        if name == "student":
            x = FakeQuantize(QuantSpec(), 1.5, name="edge")(x)
        x = layers.BatchNormalization(name="bn")(layers.Conv2D(3, 3, use_bias=False, name="conv")(x))
        models.append(keras.Model(image, layers.Dense(2, "softmax", name="head")(layers.Flatten()(layers.ReLU()(x)))))
        models[-1].save(tmp_path / f"{name}.keras")
    rng = np.random.default_rng(0)
    images, labels = rng.normal(0, 1, (12, 6, 6, 2)).astype("float32"), rng.integers(0, 2, 12)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)

    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    script = _TRAINING.replace("SETTINGS", repr(settings))
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("jax")

    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    recipe = Recipe.from_dict(settings)
    tuned = fine_tune(
        models[0], lambda _: data, data, recipe, teacher=models[1], folder=tmp_path / "here", progress=False
    )
    with np.load(tmp_path / "run" / "last.npz") as there, np.load(tmp_path / "here" / "last.npz") as here:
        assert set(there.files) == set(here.files)
        moved = float(here["model/0"]) - 1.5
        assert abs(moved) > 1e-4
        assert float(there["model/0"]) - 1.5 == pytest.approx(moved, rel=0.05)
        for name in set(here.files) - {"state"}:
            np.testing.assert_allclose(there[name], here[name], rtol=1e-3, atol=1e-4, err_msg=name)
    told = json.loads((tmp_path / "run" / "history.json").read_text())["epochs"]
    for record, other in zip(tuned.history, told, strict=True):
        for name in ("train_loss", "train_accuracy", "selection_loss", "selection_accuracy", "selection_agreement"):
            expected = getattr(record, name)
            fine = expected if expected is None else pytest.approx(expected, rel=1e-3)
            assert other[name] == fine, (record.epoch, name)


_NUMBERS = """
import sys
import keras
import numpy as np
import tensorflow as tf
from keras_qat.errors import UserError
from keras_qat.training import Recipe, fine_tune

image = keras.Input((3,))
model = keras.Model(image, keras.layers.Dense(2, "softmax")(image))

def run(factor):
    images = np.ones((8, 3), "float32")
    images[4:] *= factor
    data = tf.data.Dataset.from_tensor_slices((images, [0, 1] * 4)).batch(4)
    fine = tf.data.Dataset.from_tensor_slices((np.ones((4, 3), "float32"), [0, 1] * 2)).batch(4)
    recipe = Recipe(distillation=None, optimizer="sgd", schedule="1@0,0.1@1", learning_rate=0.25, epochs=2)
    return fine_tune(model, lambda _: data, fine, recipe)

run(1)
try:
    run(np.nan)
except UserError as error:
    print(error)
print(keras.backend.backend())
"""


def test_the_learning_rate_is_known_on_jax() -> None:
    """On the bar on a terminal, and where a loss is NaN: within an epoch the variables have no values there."""
    pytest.importorskip("jax")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "FORCE_COLOR": "1", "COLUMNS": "200"}
    command = [sys.executable, "-W", "ignore", "-c", _NUMBERS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert "lr 2.50e-01" in done.stderr
    assert "lr 2.50e-02" in done.stderr
    assert "epoch 1, step 2. Received: loss=nan at learning rate 0.025" in done.stdout
    assert done.stdout.strip().endswith("jax")

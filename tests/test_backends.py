"""Calibration and repair on another backend of Keras: the same as on TensorFlow, to the rounding of float32."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_qat import Ranges, apply_placement, calibrate, correct_bias, plan, trace
from keras_qat.calibration import OBSERVERS, reestimate_batch_norms
from keras_qat.evaluation import diagnose

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

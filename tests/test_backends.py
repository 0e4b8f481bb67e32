"""Calibration on another backend of Keras: the same ranges as on TensorFlow, to the rounding of float32."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_qat import Ranges, calibrate, plan, trace
from keras_qat.calibration import OBSERVERS

layers = keras.layers

_SCRIPT = """
import sys
import keras
import numpy as np
from keras_qat import calibrate, plan, trace

folder, *methods = sys.argv[1:]
model = keras.models.load_model(f"{folder}/model.keras")
images = np.load(f"{folder}/images.npy")
placement = plan(trace(model).graph, "onnxruntime")
for method in methods:
    calibrate(model, placement, [images[:9], images[9:]], method=method).save(f"{folder}/{method}.json")
print(keras.backend.backend())
"""


def test_ranges_on_jax_are_those_on_tensorflow(tmp_path: Path) -> None:
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

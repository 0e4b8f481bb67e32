"""Training on several devices gives the same weights as one device with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_qat.errors import UserError
from keras_qat.training import Recipe, find_devices, require_device_recipe, shareable

_SCRIPT = """
import sys
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from keras_qat import Recipe, apply_placement, calibrate, fine_tune, plan, trace
from keras_qat.training import Distillation, device_scope, find_devices

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(50, 8, 8, 3)).astype("float32")
y = rng.integers(0, 4, 50)
image = keras.Input((8, 8, 3))
hidden = keras.layers.Conv2D(8, 3, kernel_regularizer="l2")(image)
hidden = keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))
hidden = keras.layers.GlobalAveragePooling2D()(hidden)
net = keras.Model(image, keras.layers.Dense(4, activation="softmax")(hidden))
placement = plan(trace(net).graph, "tensorrt")
quantized = apply_placement(net, placement, calibrate(net, placement, [x]))
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
# The steps of SGD are proportional to the gradient: a sum in place of a mean would double them.
recipe = Recipe(
    epochs=2, batch_size=16, optimizer="sgd-momentum", learning_rate=0.01, distillation=Distillation(weight=0.5),
)
for name, count in {"one": 1, "two": 2, "again": 2}.items():
    with device_scope(find_devices(count, kind="CPU")):
        tuned = fine_tune(quantized, lambda epoch: data, data, recipe, teacher=net, folder=f"{sys.argv[1]}/{name}")
    weights = {f"w{i}": w for i, w in enumerate(tuned.model.get_weights())}
    moved = max(np.abs(w - v).max() for w, v in zip(weights.values(), quantized.get_weights()))
    loss = tuned.history[-1].train_loss
    np.savez(f"{sys.argv[1]}/{name}.npz", loss=loss, best=tuned.best_epoch, moved=moved, **weights)
"""


def test_two_devices_train_as_one(tmp_path: Path) -> None:
    """Run in a separate process, because TensorFlow can't split its devices once it has started."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _SCRIPT, str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, *others = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("one", "two", "again"))
    assert one["moved"] > 1e-3
    for two in others:
        assert one["best"] == two["best"] > 0
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        for name in one:
            np.testing.assert_allclose(two[name], one[name], atol=1e-4, err_msg=name)


@pytest.mark.parametrize("count", [2, -1])
def test_devices_that_are_not_there_are_refused(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _: [])
    with pytest.raises(
        UserError, match=rf"There are 0 GPUs.*Received: devices={count}|`devices` must be at least 0. Received: -1"
    ):
        find_devices(count)


def test_all_of_none_is_where_keras_trains_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _: [])
    assert find_devices(0) == ()


@pytest.mark.parametrize("setting", [{"accumulate": 2}, {"clip_norm": 1.0}, {"range_mode": "ema"}])
def test_what_needs_the_whole_batch_in_one_place_is_refused(setting: dict[str, Any]) -> None:
    recipe = Recipe(**setting)
    require_device_recipe(recipe, ())
    with pytest.raises(UserError, match=f"`{next(iter(setting))}` doesn't go with several devices"):
        require_device_recipe(recipe, ("GPU:0", "GPU:1"))


@pytest.mark.parametrize("images", range(1, 40))
def test_no_batch_leaves_a_device_without_images(images: int) -> None:
    kept = shareable(images, 8, 3)
    sizes = [min(8, kept - start) for start in range(0, kept, 8)]
    assert min(sizes, default=3) >= 3
    assert images - kept in {0, 1, 2}


def test_a_batch_too_small_for_the_devices_is_refused() -> None:
    with pytest.raises(UserError, match="batch_size=2 for 3 devices"):
        shareable(10, 2, 3)

"""Quantization and fine-tuning on JAX and PyTorch in a process that can't import TensorFlow."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat import apply_placement, calibrate, correct_bias, plan, trace
from keras_qat.training import Distillation, Recipe, fine_tune

layers = keras.layers
RNG = np.random.default_rng(0)
DATA = {
    "image": RNG.normal(size=(12, 6, 6, 1)).astype("float32"),
    "size": RNG.normal(size=(12, 2)).astype("float32"),
    "kind": RNG.integers(0, 3, 12),
    "box": RNG.normal(size=(12, 4)).astype("float32"),
}
RECIPE = Recipe(
    epochs=2,
    batch_size=4,
    optimizer="sgd-momentum",
    schedule="constant",
    learning_rate=0.01,
    distillation=Distillation(0.5),
)

_SCRIPT = """
import json
import sys
from pathlib import Path

sys.modules["tensorflow"] = None

import keras
import numpy as np
from interrupts import InterruptAt
from keras_qat import apply_placement, calibrate, correct_bias, plan, trace
from keras_qat.training import Recipe, fine_tune

folder = Path(sys.argv[1])
data = dict(np.load(folder / "data.npz"))
recipe = Recipe.from_dict(json.loads((folder / "recipe.json").read_text()))
model = keras.models.load_model(folder / "model.keras")
x = {"image": data["image"], "size": data["size"]}
placement = plan(trace(model).graph, "onnxruntime", weight_bits=4)
quantized = apply_placement(model, placement, calibrate(model, placement, x))
student = correct_bias(model, quantized, x).model

batches = [
    ({name: array[i : i + 4] for name, array in x.items()}, {name: data[name][i : i + 4] for name in ("kind", "box")})
    for i in range(0, 12, 4)
]

class Batches(keras.utils.PyDataset):
    num_batches = property(lambda self: len(batches))

    def __getitem__(self, index):
        return batches[index]

def train(**options):
    return fine_tune(student, lambda epoch: iter(batches), Batches(), recipe, teacher=model, folder=folder / "run",
                     progress=False, keep_every_s=0, **options)

try:
    train(callbacks=[InterruptAt(2, 1)])
    raise SystemExit("not interrupted")
except KeyboardInterrupt:
    tuned = train()
assert sys.modules["tensorflow"] is None
weights = {f"w{i}": np.asarray(keras.ops.convert_to_numpy(w)) for i, w in enumerate(tuned.model.weights)}
np.savez(folder / "weights.npz", **weights)
print(keras.backend.backend())
"""


def detector() -> keras.Model:
    image, size = keras.Input((6, 6, 1), name="image"), keras.Input((2,), name="size")
    x = layers.Concatenate()([layers.Flatten()(layers.Conv2D(3, 3, activation="relu")(image)), size])
    return keras.Model([image, size], [layers.Dense(3, "softmax", name="kind")(x), layers.Dense(4, name="box")(x)])


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_backend_needs_no_tensorflow(backend: str, tmp_path: Path) -> None:
    """Two inputs, two outputs, data by name, an interrupt: as on TensorFlow, to the rounding of float32."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} isn't installed")
    keras.utils.set_random_seed(1)
    model = detector()
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", **DATA)
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE.to_dict()))
    paths = (str(Path(__file__).parent), str(Path(keras_qat.__file__).parents[1]))
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-W", "ignore", "-c", _SCRIPT, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(backend)

    x = {"image": DATA["image"], "size": DATA["size"]}
    placement = plan(trace(model).graph, "onnxruntime", weight_bits=4)
    quantized = apply_placement(model, placement, calibrate(model, placement, x))
    student = correct_bias(model, quantized, x).model
    parts = [{name: array[i : i + 4] for name, array in DATA.items()} for i in range(0, 12, 4)]
    batches = [([part["image"], part["size"]], (part["kind"], part["box"])) for part in parts]
    tuned = fine_tune(student, batches, batches, RECIPE, teacher=model, progress=False)
    there = np.load(tmp_path / "weights.npz")
    for i, weight in enumerate(tuned.model.weights):
        np.testing.assert_allclose(there[f"w{i}"], keras.ops.convert_to_numpy(weight), atol=2e-4, err_msg=weight.path)
    told = json.loads((tmp_path / "run" / "history.json").read_text())["epochs"]
    for record, other in zip(tuned.history, told, strict=True):
        for name in ("selection_loss", "selection_agreement", "selection_sqnr", "selection_accuracy"):
            assert other[name] == pytest.approx(getattr(record, name), rel=1e-2), (record.epoch, name)

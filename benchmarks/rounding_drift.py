"""How often do correct engines give one quantized network different classes?

The same INT8 file runs in ONNX Runtime at three levels of graph optimization, the same simulation in Keras on the
images as they are and moved by one part in ten million. All compute the same numbers but for the order of additions.
Beside them the float network under the same treatment, and the file cut at every Q/DQ pair (`tensor_errors`).

    python benchmarks/rounding_drift.py RUN_FOLDER --data IMAGE_FOLDER

RUN_FOLDER is one that `keras-qat run` wrote.
"""

import json
from pathlib import Path
from typing import Any

import cyclopts
import keras
import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

import keras_qat  # noqa: F401  (lets Keras load the quantized layers)
from keras_qat.data import load_data
from keras_qat.models import find
from keras_qat.verify import tensor_errors

BATCH = 25
LEVELS = {
    "ONNX Runtime, no optimization": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "ONNX Runtime, basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "ONNX Runtime, all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def main(run: Path, *, data: str, images: int | None = None) -> None:
    """Measure and print.

    Args:
        run: the folder of a finished run.
        data: the image folder it was made with.
        images: how many validation images; all if not given.
    """
    settings = json.loads((run / "settings.json").read_text())
    validation = load_data(data, find(settings["model"]).preprocessing, settings["seed"]).validation
    validation = validation if images is None else validation.take(images, settings["seed"])
    x = np.concatenate([batch for batch, _ in validation.arrays(BATCH)])
    moved = (x * (1 + 1e-7 * np.random.default_rng(0).choice([-1, 1], x.shape))).astype(np.float32)
    for name in ("baseline", "ptq"):
        model = keras.models.load_model(run / f"{name}.keras")
        classes = {"Keras": _in_keras(model, x), "Keras, images moved by 1e-7": _in_keras(model, moved)}
        classes |= {title: _in_onnxruntime(run / f"{name}.onnx", level, x) for title, level in LEVELS.items()}
        _show(f"{name}: same class, % of {len(x)} images", classes)
        errors = tensor_errors(model, run / f"{name}.onnx", [(x[i : i + 8], None) for i in range(0, 32, 8)])
        worst, most = max(e.worst for e in errors), max(e.differing for e in errors)
        Console().print(f"{name}, tensor by tensor: at most {worst:.3g} steps, {100 * most:.2g}% of a tensor differ\n")


def _in_keras(model: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict(x, batch_size=BATCH, verbose=0).argmax(axis=1))


def _in_onnxruntime(path: Path, level: Any, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    scores = [session.run(None, {name: x[i : i + BATCH]})[0] for i in range(0, len(x), BATCH)]
    return np.asarray(np.concatenate(scores).argmax(axis=1))


def _show(title: str, classes: dict[str, np.ndarray]) -> None:
    table = Table("", *(str(i + 1) for i in range(len(classes))), title=title)
    for number, (name, ours) in enumerate(classes.items()):
        shares = (f"{100 * np.mean(ours == theirs):.1f}" for theirs in classes.values())
        table.add_row(f"{number + 1} {name}", *shares)
    Console(width=100).print(table)


if __name__ == "__main__":
    cyclopts.run(main)

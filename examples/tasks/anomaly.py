"""An autoencoder that finds faults: it is trained on good parts alone, and reconstructs faulty ones badly.

    python examples/tasks/anomaly.py work
    keras-qat run --model work/autoencoder.keras --data work/good.npy --run-folder work/run
    python examples/tasks/anomaly.py work --judge work/run/qat.onnx

`good.npy` holds gray images, float32 from 0 to 1; nothing is resized or normalized. The score of a part is the mean
squared error of its reconstruction. The last command prints how well this score tells good parts from faulty ones (the
area under the ROC curve), for the float model and for a file.
"""

from pathlib import Path

import cyclopts
import keras
import numpy as np
import onnxruntime
from keras import layers
from sklearn.metrics import roc_auc_score

SIDE = 32


def make_parts(count: int, seed: int, *, faulty: bool = False) -> np.ndarray:
    """Gratings, float32 (count, 32, 32, 1); faulty ones have a scratch."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    parts = []
    for _ in range(count):
        phase, tilt = random.uniform(0, 2 * np.pi), random.uniform(-0.05, 0.05)
        part = 0.5 + 0.35 * np.sin(2 * np.pi * (columns / 8 + tilt * rows) + phase)
        part = part + random.normal(0, 0.02, part.shape)
        if faulty:
            y, x = random.integers(4, SIDE - 10, 2)
            for step in range(6):
                part[y + step, x + step : x + step + 2] = random.uniform(0, 1)
        parts.append(part)
    return np.clip(np.stack(parts), 0, 1).astype(np.float32)[..., np.newaxis]


def autoencoder() -> keras.Model:
    """Build an encoder to 4 × 4 × 8 numbers and a decoder from them."""
    x = inputs = keras.Input((SIDE, SIDE, 1), name="part")
    for filters in (16, 24, 8):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    for filters in (24, 16, 16):
        x = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="reconstruction")(x))


def auc(reconstruct: object, good: np.ndarray, faulty: np.ndarray) -> float:
    """The area under the ROC curve of the reconstruction's error as a score of faults."""
    scores = [np.mean((reconstruct(parts) - parts) ** 2, axis=(1, 2, 3)) for parts in (good, faulty)]  # type: ignore[operator]
    truth = np.repeat([0, 1], [len(good), len(faulty)])
    return float(roc_auc_score(truth, np.concatenate(scores)))


def main(folder: Path, *, judge: Path | None = None, parts: int = 1000, epochs: int = 20) -> None:
    """Write the data and the trained float model; or compare the float model with a file.

    Args:
        folder: where `good.npy` and `autoencoder.keras` are.
        judge: an ONNX file to compare with the float model.
        parts: number of good parts.
        epochs: of training.
    """
    keras.utils.set_random_seed(0)
    if judge is None:
        folder.mkdir(parents=True, exist_ok=True)
        good = make_parts(parts, seed=0)
        np.save(folder / "good.npy", good)
        model = autoencoder()
        model.compile(keras.optimizers.Adam(2e-3), "mse")
        model.fit(good, good, batch_size=32, epochs=epochs, verbose=2)
        model.save(folder / "autoencoder.keras")
        return
    good, faulty = make_parts(300, seed=1), make_parts(300, seed=2, faulty=True)
    model = keras.models.load_model(folder / "autoencoder.keras")
    session = onnxruntime.InferenceSession(str(judge), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    in_keras = auc(lambda x: model.predict(x, verbose=0), good, faulty)
    in_file = auc(lambda x: session.run(None, {name: x})[0], good, faulty)
    print(f"AUC of the float model {in_keras:.4f}, of {judge.name} {in_file:.4f}")  # noqa: T201


if __name__ == "__main__":
    cyclopts.run(main)

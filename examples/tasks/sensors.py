"""A Conv1D network that tells movements apart by an accelerometer: windows of 128 × 3 samples, in an .npz file.

    python examples/tasks/sensors.py work
    keras-qat run --model work/sensors.keras --data work/windows.npz --run-folder work/run

The arrays of `windows.npz` are `x`, float32 (windows, 128, 3), and `y`, the number of the movement.
"""

from pathlib import Path

import cyclopts
import keras
import numpy as np
from keras import layers

SAMPLES, CHANNELS = 128, 3
MOVEMENTS = 6


def make_windows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows, float32 (count, 128, 3), and the movement of each: two tones a channel, drifting, in noise."""
    random = np.random.default_rng(seed)
    y = random.integers(0, MOVEMENTS, count)
    time = np.arange(SAMPLES) / 50
    tones = np.random.default_rng(7).uniform(0.8, 6, (MOVEMENTS, CHANNELS, 2))
    strengths = np.random.default_rng(8).uniform(0.3, 1.5, (MOVEMENTS, CHANNELS, 2))
    phases = random.uniform(0, 2 * np.pi, (count, CHANNELS, 2, 1))
    speeds = random.normal(1, 0.05, (count, 1, 1, 1))
    waves = strengths[y][..., np.newaxis] * np.sin(2 * np.pi * tones[y][..., np.newaxis] * speeds * time + phases)
    noise = random.normal(0, 2.5, (count, CHANNELS, SAMPLES))
    return np.moveaxis(waves.sum(2) + noise, 1, 2).astype(np.float32), y.astype(np.int32)


def network() -> keras.Model:
    """Build a network of 1-D convolutions, some depthwise separable."""
    x = inputs = keras.Input((SAMPLES, CHANNELS), name="window")
    x = layers.Conv1D(32, 5, strides=2, padding="same", activation="relu")(x)
    for filters in (48, 64):
        x = layers.SeparableConv1D(filters, 5, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling1D()(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(MOVEMENTS, "softmax", name="movement")(x), name="sensors")


def main(folder: Path, *, windows: int = 3000, epochs: int = 12) -> None:
    """Write the data and the trained float model.

    Args:
        folder: where `windows.npz` and `sensors.keras` go.
        windows: number of windows.
        epochs: of training.
    """
    keras.utils.set_random_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    x, y = make_windows(windows, seed=0)
    np.savez(folder / "windows.npz", x=x, y=y)
    model = network()
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=2)
    model.save(folder / "sensors.keras")


if __name__ == "__main__":
    cyclopts.run(main)

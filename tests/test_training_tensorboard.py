"""The TensorBoard logs, read with TensorBoard's own reader."""

import logging
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat.layers import FakeQuantize
from keras_qat.training import Distillation, FineTuned, RangesToTensorBoard, Recipe, fine_tune
from keras_qat.training.callbacks import tensorboard_callbacks
from keras_qat.types import QuantSpec

IMAGES = np.random.default_rng(0).normal(0, 1, (8, 3)).astype("float32")
DATA = tf.data.Dataset.from_tensor_slices((IMAGES, [0, 1] * 4)).batch(4)


def make_model(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    image = keras.Input((3,))
    x = FakeQuantize(QuantSpec(), 2.0, name="edge_quantize")(image)
    return keras.Model(image, keras.layers.Dense(2, "softmax")(x))


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Return tag → step → value, from all event files in a folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    values: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("events.*")):
        events = accumulator.EventAccumulator(str(file), size_guidance={"tensors": 0})
        events.Reload()
        for tag in events.Tags()["tensors"]:
            for event in events.Tensors(tag):
                value = tf.make_ndarray(event.tensor_proto)
                if value.dtype == np.float32 and value.shape == ():
                    values.setdefault(tag, {})[event.step] = float(value)
    return values


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FineTuned, list[float]]:
    """The logs, the result and the range after each epoch of a run whose teacher is quantized too."""
    folder, ranges = tmp_path_factory.mktemp("run"), []
    peek = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ranges.append(float(peek.model.student.get_layer("edge_quantize").amax))  # noqa: ARG005
    )
    recipe = Recipe(
        optimizer="sgd-momentum",
        schedule="1.0@0,0.5@1",
        learning_rate=0.1,
        epochs=2,
        distillation=Distillation(),
        range_mode="ema",
    )
    tuned = fine_tune(
        make_model(1),
        lambda _: DATA,
        DATA,
        recipe,
        teacher=make_model(2),
        folder=folder,
        progress=False,
        callbacks=[peek],
    )
    return folder / "tensorboard", tuned, ranges


def test_the_curves_are_those_of_the_history(run: tuple[Path, FineTuned, list[float]]) -> None:
    folder, tuned, _ = run
    train, validation = scalars(folder / "train"), scalars(folder / "validation")
    for record in tuned.history[1:]:
        step = record.epoch - 1
        assert train["epoch_loss"][step] == pytest.approx(record.train_loss)
        assert train["epoch_accuracy"][step] == pytest.approx(record.train_accuracy)
        assert 0 <= train["epoch_agreement"][step] <= 1
        assert validation["epoch_loss"][step] == pytest.approx(record.selection_loss)
        assert validation["epoch_accuracy"][step] == pytest.approx(record.selection_accuracy)
        assert validation["epoch_agreement"][step] == pytest.approx(record.selection_agreement)


def test_the_learning_rate_is_shown(run: tuple[Path, FineTuned, list[float]]) -> None:
    """At the end of an epoch, the optimizer's rate is that of the next step."""
    rates = scalars(run[0] / "train")["epoch_learning_rate"]
    assert rates == pytest.approx({0: 0.05, 1: 0.05})


def test_the_ranges_are_shown_by_tensor(run: tuple[Path, FineTuned, list[float]]) -> None:
    folder, _, ranges = run
    shown = scalars(folder / "ranges")
    assert shown == {"range/edge_quantize": pytest.approx(dict(enumerate(ranges)))}
    assert ranges[0] != ranges[1]


def test_the_folder_may_be_a_string(tmp_path: Path) -> None:
    model = make_model(1)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(DATA, epochs=1, shuffle=False, verbose=0, callbacks=[RangesToTensorBoard(str(tmp_path))])
    assert scalars(tmp_path / "ranges") == {"range/edge_quantize": {0: 2.0}}


def test_without_tensorboard_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # noqa: ARG005
    with caplog.at_level(logging.INFO):
        assert tensorboard_callbacks(tmp_path) == []
    assert "pip install 'keras-qat[tensorboard]'" in caplog.text

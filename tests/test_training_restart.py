"""Runs that end in the middle of an epoch, by Ctrl-C or `kill -9`, and resume with the same result."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_qat
from interrupts import InterruptAt
from keras_qat.errors import StorageError
from keras_qat.layers import FakeQuantize, QuantizedDense
from keras_qat.training import Distillation, FineTuned, Recipe, fine_tune
from keras_qat.types import QuantSpec

STEPS = 4


def data(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 8 * STEPS)
    images = rng.normal(labels[:, None] - 0.5, 1.0, (8 * STEPS, 6)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((images, labels))


def train_data(epoch: int) -> Any:
    return data(0).shuffle(8 * STEPS, seed=epoch).batch(8)


SELECTION = data(1).batch(8)


def make_model(seed: int = 1) -> keras.Model:
    """Make a model with everything that has a state: a dropout's seed, a batch norm's statistics, a range."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((6,))
    x = FakeQuantize(QuantSpec(), 2.0, name="edge")(image)
    x = QuantizedDense(8, weight_spec=QuantSpec(narrow=True, axis=1), name="first")(x)
    x = keras.layers.Dropout(0.3)(keras.layers.BatchNormalization(name="bn")(x))
    return keras.Model(image, keras.layers.Dense(2, "softmax", name="last")(x))


def recipe(**settings: Any) -> Recipe:
    common: dict[str, Any] = {"optimizer": "sgd-momentum", "schedule": "1.0@1,0.3@2", "learning_rate": 0.1, "epochs": 2}
    return Recipe(**{**common, "batch_norm": "train", "distillation": Distillation(0.7), **settings})


RECIPES = {
    "labels": recipe(distillation=None),
    "teacher, learned ranges": recipe(range_mode="learned", learning_rate=1e-3),
    "freezing": recipe(range_mode="ema", batch_norm="freeze_after=1", freeze_ranges_after=1),
    "accumulating": recipe(distillation=None, optimizer="adam", accumulate=3),
}


def run(folder: Path | None, settings: Recipe, **options: Any) -> FineTuned:
    given: dict[str, Any] = {"model": make_model(), "teacher": make_model(2), "keep_every_s": 0, **options}
    model = given.pop("model")
    return fine_tune(model, train_data, SELECTION, settings, folder=folder, progress=False, **given)


def last(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(folder / "last.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(str(arrays.pop("state"))), arrays


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


def assert_same_end(left: Path, right: Path) -> None:
    """Compare weights, seeds, optimizer and history bit by bit."""
    (a, left_arrays), (b, right_arrays) = last(left), last(right)
    assert without_times(a["history"]) == without_times(b["history"])
    assert a["step"] == b["step"] == 0
    assert left_arrays.keys() == right_arrays.keys()
    for name, array in left_arrays.items():
        np.testing.assert_array_equal(array, right_arrays[name], name)
    for one, other in zip(
        *(keras.models.load_model(f / "best.keras").get_weights() for f in (left, right)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Uninterrupted runs without checkpoints within an epoch."""
    folders = {}
    for name, settings in RECIPES.items():
        folders[name] = tmp_path_factory.mktemp("whole")
        run(folders[name], settings, keep_every_s=1e9)
    return folders


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("labels", [(1, 1), (1, 2), (2, 1)]),  # the second counts from the first
        ("labels", [(2, None)]),  # after the last step, when the selection data are evaluated
        ("freezing", [(2, 2)]),
        ("accumulating", [(2, 1)]),
    ],
)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    name: str, stops: list[tuple[int, int | None]], whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "cut"
    taken: list[int] = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: taken.append(batch))  # noqa: ARG005
    for epoch, step in stops:
        with pytest.raises(KeyboardInterrupt):
            run(folder, RECIPES[name], callbacks=[count, InterruptAt(epoch, step)])
        keras.utils.set_random_seed(99)  # a new process would start elsewhere
    state, _ = last(folder)
    # The state is saved before the interrupt's callback is called. After an epoch's last step, nothing is saved.
    assert len(state["history"]) == stops[-1][0]
    assert 0 < state["step"] < STEPS
    run(folder, RECIPES[name], callbacks=[count])
    assert_same_end(folder, whole[name])
    # No saved step is repeated.
    assert len(taken) == 2 * STEPS + (stops[-1][1] is None)


def test_no_checkpoint_is_written_before_the_interval_has_passed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, RECIPES["labels"], keep_every_s=1e9, callbacks=[InterruptAt(2, 3)])
    state, _ = last(tmp_path)
    assert (len(state["history"]), state["step"]) == (2, 0)


def test_a_selection_that_draws_random_numbers_changes_nothing(tmp_path: Path) -> None:
    """One batch of the selection is read before an interrupted epoch resumes."""

    def drawing() -> Any:
        np.random.rand(3)  # noqa: NPY002
        yield from SELECTION.unbatch().as_numpy_iterator()

    signature = (tf.TensorSpec((6,), tf.float32), tf.TensorSpec((), tf.int64))
    selection = tf.data.Dataset.from_generator(drawing, output_signature=signature).batch(8)

    def train(epoch: int) -> Any:
        return train_data(epoch).map(lambda x, y: (x * tf.constant(np.random.rand(), tf.float32), y))  # noqa: NPY002

    def go(folder: Path, **options: Any) -> None:
        settings = RECIPES["labels"]
        fine_tune(make_model(), train, selection, settings, folder=folder, progress=False, keep_every_s=0, **options)

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", callbacks=[InterruptAt(2, 2)])
    go(tmp_path / "cut")
    go(tmp_path / "whole")
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


class Satisfied(keras.callbacks.Callback):
    """Sets `stop_training` after a step (from 1) of an epoch (from 1), or at the epoch's end."""

    def __init__(self, epoch: int, step: int | None = None) -> None:
        super().__init__()
        self.epoch, self.step, self.now = epoch, step, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.now = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        if (self.now, batch + 1) == (self.epoch, self.step):
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        if self.now == self.epoch and self.step is None:
            self.model.stop_training = True


@pytest.mark.parametrize("step", [None, STEPS, 2])
def test_a_callback_that_stops_the_training_ends_the_run(
    step: int | None, whole: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        tuned = run(tmp_path, RECIPES["labels"], keep_every_s=1e9, callbacks=[Satisfied(1, step)])
    cut = step == 2
    assert [record.epoch for record in tuned.history] == ([0] if cut else [0, 1])
    assert ("after step 2 of 4 of epoch 1, which doesn't count" in caplog.text) == cut
    run(tmp_path, RECIPES["labels"])
    assert_same_end(tmp_path, whole["labels"])


# --- kill -9 ----------------------------------------------------------------------------------------------------------

_KILLED = """
import os, signal, sys
from pathlib import Path
from interrupts import InterruptAt
from test_training_restart import RECIPES, run

name, folder = sys.argv[1:]
kill = InterruptAt(2, 3, before=lambda: os.kill(os.getpid(), signal.SIGKILL))
run(Path(folder), RECIPES[name], callbacks=[kill])
"""


def test_a_killed_process_goes_on_in_another(whole: dict[str, Path], tmp_path: Path) -> None:
    name = "teacher, learned ranges"
    command = [sys.executable, "-W", "ignore", "-c", _KILLED, name, str(tmp_path / "killed")]
    # The process runs the package that is tested here, wherever that was imported from.
    source = Path(keras_qat.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(source)])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    assert done.returncode == -signal.SIGKILL, done.stderr
    state, _ = last(tmp_path / "killed")
    assert (len(state["history"]), state["step"]) == (2, 3)
    run(tmp_path / "killed", RECIPES[name])
    assert_same_end(tmp_path / "killed", whole[name])


# --- checks before training -------------------------------------------------------------------------------------------


class NoTraining(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        raise AssertionError((batch, logs))


def test_a_disk_that_is_too_full_is_reported_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6, 100))
    with pytest.raises(StorageError, match=r"too full.*Received: 0\.1 kB free.*Make room"):
        run(tmp_path, RECIPES["labels"], callbacks=[NoTraining()])
    # Twice the size of both files, because new files are written beside the old ones.
    numbers = make_model().count_params()
    momenta = sum(int(np.prod(v.shape)) for v in make_model().trainable_variables)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 0, 2 * 4 * (2 * numbers + momenta)))
    with pytest.raises(StorageError, match="too full"):  # the seeds and counters are missing
        run(tmp_path, RECIPES["labels"], callbacks=[NoTraining()])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 0, 2 * 4 * (2 * numbers + momenta) + 500))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, RECIPES["labels"], callbacks=[InterruptAt(1, 1)])


def test_another_teacher_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for teacher, anew in ((2, False), (3, True)):
        with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
            run(tmp_path, recipe(), teacher=make_model(teacher), callbacks=[InterruptAt(1, 1)])
        assert ("(teacher differs): starting anew" in caplog.text) == anew


def test_a_teacher_that_is_not_used_does_not_identify_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for teacher in (2, 3):
        with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
            run(tmp_path, RECIPES["labels"], teacher=make_model(teacher), callbacks=[InterruptAt(1, 1)])
    assert "anew" not in caplog.text

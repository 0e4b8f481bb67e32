"""Interrupts, resumes and damaged checkpoints."""

import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from interrupts import InterruptAt
from keras_qat.errors import StorageError
from keras_qat.layers import QuantizedDense
from keras_qat.training import EpochRecord, FineTuned, Recipe, fine_tune
from keras_qat.training.checkpoint import History, Position, RunIdentity, save_checkpoint
from keras_qat.training.cloning import fingerprint
from keras_qat.training.session import open_session
from keras_qat.types import QuantSpec

# Keras 3.15 saves variables through an `__array__` without the `copy` keyword of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

RECIPE = Recipe(
    distillation=None,
    optimizer="sgd-momentum",
    monitor="accuracy",
    schedule="1.0@1,3@2",
    learning_rate=0.1,
    epochs=3,
    batch_norm="train",
)

Whole = tuple[Path, FineTuned, list[list[np.ndarray]]]


def data(count: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.normal(labels[:, None, None, None] - 0.5, 1.0, (count, 6, 6, 1)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((images, labels))


def train_data(epoch: int) -> Any:
    """Give wrong labels in epoch 3, so that the last epoch isn't the best."""
    return data(32, 0).map(lambda x, y: (x, 1 - y if epoch == 3 else y)).shuffle(32, seed=epoch).batch(8)


SELECTION = data(64, 1).batch(32)


def make_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((6, 6, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 3)(image))
    x = keras.layers.Dropout(0.3)(keras.layers.Flatten()(x))
    return keras.Model(image, keras.layers.Dense(2, "softmax")(x))


def run(folder: str | Path | None, recipe: Recipe = RECIPE, model: Any = None, **options: Any) -> FineTuned:
    return fine_tune(model or make_model(), train_data, SELECTION, recipe, folder=folder, progress=False, **options)


class NoTraining(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        raise AssertionError((batch, logs))


def weights(path: Path) -> list[np.ndarray]:
    return list(keras.models.load_model(path).get_weights())


def last(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the state in `last.npz`, and its arrays: weights, seeds, the optimizer's state."""
    with np.load(folder / "last.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(str(arrays.pop("state"))), arrays


def assert_same_state(left: Path, right: Path) -> None:
    (a, left_arrays), (b, right_arrays) = last(left), last(right)
    assert a["step"] == b["step"]
    assert left_arrays.keys() == right_arrays.keys()
    for name, array in left_arrays.items():
        np.testing.assert_array_equal(array, right_arrays[name], name)


def assert_same(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def numbers(tuned: FineTuned) -> list[tuple[Any, ...]]:
    return [(r.epoch, r.learning_rate, r.train_loss, r.selection_loss, r.selection_accuracy) for r in tuned.history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An uninterrupted run whose best epoch isn't the last, and the weights after each epoch."""
    folder, after = tmp_path_factory.mktemp("whole"), []

    class Peek(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            after.append([np.array(variable) for variable in self.model.variables])

    tuned = run(folder, callbacks=[Peek()])
    assert 0 < tuned.best_epoch < 3
    return folder, tuned, after


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Last finished epoch → folder of a run that was interrupted in the middle of the next epoch."""
    folders = {}
    for epoch in (1, 2):
        folders[epoch] = tmp_path_factory.mktemp(f"after-{epoch}")
        with pytest.raises(KeyboardInterrupt):
            run(folders[epoch], callbacks=[InterruptAt(epoch + 1)])
    return folders


@pytest.fixture
def cut(interrupted: dict[int, Path], tmp_path: Path) -> Path:
    """A run interrupted in the middle of epoch 2."""
    return Path(shutil.copytree(interrupted[1], tmp_path / "cut"))


def test_an_interrupt_leaves_the_last_epoch_whole(interrupted: dict[int, Path], whole: Whole) -> None:
    for epoch, folder in interrupted.items():
        state, arrays = last(folder)
        assert (len(state["history"]) - 1, state["step"]) == (epoch, 0)
        assert_same([arrays[f"model/{i}"] for i in range(len(whole[2][0]))], whole[2][epoch - 1])
        assert int(arrays["optimizer/optimizer/iteration"]) == 4 * epoch
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["best.keras", "history.json", "last.npz", "tensorboard"]


def test_a_resumed_run_ends_as_an_uninterrupted_one(cut: Path, whole: Whole) -> None:
    folder, straight, _ = whole
    keras.utils.set_random_seed(99)  # a new process would start elsewhere
    np.random.default_rng(5)
    resumed = run(cut)
    assert numbers(resumed) == numbers(straight)
    assert_same_state(cut, folder)
    assert_same(resumed.model.get_weights(), straight.model.get_weights())
    assert_same(weights(cut / "best.keras"), straight.model.get_weights())


def test_a_finished_run_returns_at_once(whole: Whole) -> None:
    folder, straight, _ = whole
    again = run(folder, callbacks=[NoTraining()])
    assert again.history == straight.history
    assert_same(again.model.get_weights(), straight.model.get_weights())


def test_the_files_describe_the_run(whole: Whole) -> None:
    folder, straight, _ = whole
    state, _ = last(folder)
    assert Recipe.from_dict(state["recipe"]) == RECIPE
    assert (len(state["history"]), state["step"], state["steps_per_epoch"]) == (4, 0, 4)
    history = json.loads((folder / "history.json").read_text())
    assert Recipe.from_dict(history["recipe"]) == RECIPE
    assert history["epochs"] == [asdict(record) for record in straight.history]
    assert list((folder / "tensorboard" / "validation").iterdir())


@pytest.mark.parametrize(
    ("name", "kept"),
    [("last.npz", 0), ("last.npz", 200), ("last.npz", -200), ("best.keras", 0), ("best.keras", 200)],
)
def test_a_damaged_checkpoint_starts_anew(
    name: str, kept: int, cut: Path, whole: Whole, caplog: pytest.LogCaptureFixture
) -> None:
    # The best epoch must not be the last one, which would be read from last.npz.
    shutil.copytree(whole[0], cut, dirs_exist_ok=True)
    text = (cut / name).read_bytes()[:kept]
    (cut / name).unlink()
    if kept:
        (cut / name).write_bytes(text)
    files = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    with caplog.at_level(logging.WARNING):
        again = run(cut)
    assert f"starting anew. The files of the earlier run are in {cut / 'earlier-1'}." in caplog.text
    if name == "best.keras":
        state = "damaged" if kept else "missing"
        assert f"last.npz is whole, but best.keras is {state}" in caplog.text
    elif kept:
        assert "last.npz is damaged" in caplog.text
    # No file is lost, including the TensorBoard logs.
    assert any(path.is_relative_to(cut / "tensorboard") for path in files)
    for path, content in files.items():
        assert (cut / "earlier-1" / path.relative_to(cut)).read_bytes() == content
    assert numbers(again) == numbers(whole[1])
    assert_same(again.model.get_weights(), whole[1].model.get_weights())


def starts_anew(folder: Path, **options: Any) -> bool:
    with pytest.raises(KeyboardInterrupt):
        run(folder, callbacks=[InterruptAt(1)], **options)
    assert len(last(folder / "earlier-1")[0]["history"]) == 2
    return len(last(folder)[0]["history"]) == 1


def test_another_recipe_starts_anew(cut: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = Recipe.from_dict({**RECIPE.to_dict(), "learning_rate": 0.05})
    with caplog.at_level(logging.WARNING):
        assert starts_anew(cut, recipe=other)
    assert "recipe differs" in caplog.text
    assert "start the same run again to resume" in caplog.text


def test_another_model_starts_anew(cut: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed = make_model()
    changed.layers[1].kernel.assign(changed.layers[1].kernel * 2)
    with caplog.at_level(logging.WARNING):
        assert starts_anew(cut, model=changed)
    assert "model differs" in caplog.text


def test_resume_off_starts_anew(cut: Path) -> None:
    assert starts_anew(cut, resume=False)
    assert starts_anew(cut, resume=False)
    assert len(last(cut / "earlier-2")[0]["history"]) == 1


def test_files_that_can_not_be_read_now_are_left_alone(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {path: path.read_bytes() for path in cut.glob("*.*")}

    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(np, "load", full)
        with pytest.raises(MemoryError):
            run(cut, callbacks=[NoTraining()])
    with monkeypatch.context() as patch:
        patch.setattr(np, "load", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        with pytest.raises(StorageError, match=r"Permission denied\. Received: .*last\.npz.* Restore access"):
            run(cut, callbacks=[NoTraining()])
    assert {path: path.read_bytes() for path in cut.glob("*.*")} == files


def test_the_model_as_given_need_not_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If epoch 0 is the best so far, a lost best.keras is written again."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, keep_every_s=0, callbacks=[InterruptAt(1)])
    assert last(tmp_path)[0]["step"] == 2
    (tmp_path / "best.keras").unlink()
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        run(tmp_path, keep_every_s=0, callbacks=[InterruptAt(2)])
    assert "anew" not in caplog.text
    assert (tmp_path / "best.keras").exists()


def test_weights_that_are_not_finite_do_not_replace_the_last_good_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session, identity = open_session(make_model(), RECIPE, 4), RunIdentity(RECIPE, 4, "model")
    history = History((EpochRecord(0, None, None, None, 0.5, 0.9, 1.0),))
    save_checkpoint(tmp_path, identity, session, Position(history, 1))
    good = (tmp_path / "last.npz").read_bytes()
    session.working.layers[1].kernel.assign(np.full((3, 3, 1, 2), np.nan))
    with caplog.at_level(logging.WARNING):
        save_checkpoint(tmp_path, identity, session, Position(history, 2))
    assert (tmp_path / "last.npz").read_bytes() == good
    assert "aren't finite after step 2" in caplog.text


@pytest.mark.parametrize("old", [("history.json", "best.keras"), ("best.keras",)])
def test_a_kill_between_the_renames_is_repaired(
    old: tuple[str, ...],
    whole: Whole,
    interrupted: dict[int, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The state is that of epoch 2, but the files in `old` are still those of epoch 1."""
    folder, straight, _ = whole
    newer = Path(shutil.copytree(interrupted[2], tmp_path / "newer"))
    for name in old:
        shutil.copy(interrupted[1] / name, newer / name)
    with caplog.at_level(logging.WARNING):
        resumed = run(newer)
    assert "anew" not in caplog.text
    assert numbers(resumed) == numbers(straight)
    assert_same_state(newer, folder)
    assert_same(weights(newer / "best.keras"), straight.model.get_weights())


def test_a_folder_may_be_a_string(interrupted: dict[int, Path], whole: Whole, tmp_path: Path) -> None:
    shutil.copytree(interrupted[2], tmp_path / "cut")
    assert numbers(run(str(tmp_path / "cut"))) == numbers(whole[1])


def test_the_folder_is_checked_before_training() -> None:
    with pytest.raises(StorageError, match="Received: "):
        run(Path("/proc/keras-qat"), callbacks=[NoTraining()])


def built(change: str = "") -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(2, 3, padding="same", dilation_rate=2 if change == "dilation" else 1)(image)
    x = keras.layers.BatchNormalization(epsilon=0.1 if change == "epsilon" else 1e-3)(x)
    x = keras.layers.Dropout(0.2 if change == "dropout" else 0.3)(x)
    x = keras.layers.TimeDistributed(keras.layers.Dense(2, "relu" if change == "inner" else None))(x)
    model = keras.Model(image, keras.layers.Softmax(dtype="bfloat16" if change == "policy" else None)(x))
    model.layers[1].kernel.trainable = change != "weight"
    return model


@pytest.mark.parametrize("change", ["dilation", "epsilon", "dropout", "inner", "policy", "weight"])
def test_another_setting_of_a_layer_is_another_model(change: str) -> None:
    assert fingerprint(built()) == fingerprint(built()) != fingerprint(built(change))


def test_another_width_of_the_weights_is_another_model() -> None:
    """Overrides may change the width between two runs, and no weight shows it."""

    def quantized(bits: int) -> keras.Model:
        keras.utils.set_random_seed(1)
        image = keras.Input((3,))
        return keras.Model(image, QuantizedDense(2, weight_spec=QuantSpec(bits=bits, narrow=True, axis=1))(image))

    assert fingerprint(quantized(8)) == fingerprint(quantized(8))
    assert fingerprint(quantized(8)) != fingerprint(quantized(4))

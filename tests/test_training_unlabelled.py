"""Fine-tuning on images without labels, and the refusal of recipes that need labels."""

import json
import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from interrupts import InterruptAt
from keras_qat.errors import UserError
from keras_qat.training import Distillation, FineTuned, Recipe, fine_tune, require_label_free, train_baseline

# Keras 3.15 saves variables through an `__array__` without the `copy` keyword of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

RECIPE = Recipe(optimizer="sgd-momentum", schedule="constant", learning_rate=0.05, epochs=2)
STEPS = 4


def data(seed: int, *, labelled: bool) -> Any:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 8 * STEPS).astype("int32")
    images = rng.normal(labels[:, None] - 0.5, 1.0, (8 * STEPS, 6)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((images, labels if labelled else np.full_like(labels, -1)))


def make_model(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    image = keras.Input((6,))
    x = keras.layers.Dropout(0.2)(keras.layers.Dense(8, "relu", name="first")(image))
    return keras.Model(image, keras.layers.Dense(2, "softmax", name="last")(x))


def tune(
    recipe: Recipe = RECIPE, *, labelled: bool = False, selection: bool | None = None, **options: Any
) -> FineTuned:
    chosen_by = labelled if selection is None else selection
    return fine_tune(
        make_model(1),
        lambda epoch: data(0, labelled=labelled).shuffle(8 * STEPS, seed=epoch).batch(8),
        data(1, labelled=chosen_by).batch(8),
        recipe,
        teacher=make_model(2),
        progress=options.pop("progress", False),
        **options,
    )


@pytest.fixture(scope="module")
def without() -> FineTuned:
    return tune()


def assert_same_weights(left: FineTuned, right: FineTuned) -> None:
    for a, b in zip(left.model.get_weights(), right.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_teacher_needs_no_labels(without: FineTuned) -> None:
    """The result equals, bit by bit, that with labels that the recipe doesn't use."""
    labelled = tune(labelled=True)
    assert_same_weights(without, labelled)
    assert without.best_epoch == labelled.best_epoch > 0
    for ours, theirs in zip(without.history, labelled.history, strict=True):
        assert (ours.train_accuracy, ours.selection_accuracy) == (None, None)
        assert theirs.selection_accuracy is not None
        assert (ours.train_loss, ours.selection_loss) == (theirs.train_loss, theirs.selection_loss)
        assert ours.selection_agreement == theirs.selection_agreement


def test_labels_of_the_training_alone_measure_nothing() -> None:
    recipe = Recipe(optimizer="sgd", schedule="constant", learning_rate=0.05, epochs=1)
    tuned = tune(recipe, labelled=True, selection=False)
    assert [record.selection_accuracy for record in tuned.history] == [None, None]


def test_a_run_goes_on_where_it_was_cut(without: FineTuned, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(folder=tmp_path, keep_every_s=0, callbacks=[InterruptAt(2)])
    epochs = json.loads((tmp_path / "history.json").read_text())["epochs"]
    assert [epoch["selection_accuracy"] for epoch in epochs] == [None, None]
    resumed = tune(folder=tmp_path)
    assert_same_weights(resumed, without)
    assert [(r.train_accuracy, r.selection_accuracy) for r in resumed.history] == [(None, None)] * 3
    assert [r.selection_loss for r in resumed.history] == [r.selection_loss for r in without.history]
    assert not list(tmp_path.glob("earlier-*"))


@pytest.mark.parametrize("labelled", [True, False])
def test_no_run_goes_on_from_one_that_measured_otherwise(
    labelled: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(folder=tmp_path, labelled=labelled, keep_every_s=0, callbacks=[InterruptAt(1)])
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        tune(folder=tmp_path, labelled=not labelled, callbacks=[InterruptAt(1)])
    assert "it belongs to another run (labelled differs)" in caplog.text


def test_checkpoints_of_before_had_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tuned = tune(folder=tmp_path, labelled=True)
    with np.load(tmp_path / "last.npz") as file:
        arrays = {name: file[name] for name in file.files}
    state = json.loads(str(arrays["state"]))
    del state["labelled"]
    np.savez(tmp_path / "last.npz", **{**arrays, "state": np.array(json.dumps(state))})
    again = tune(folder=tmp_path, labelled=True)
    assert again.history == tuned.history
    assert "another run" not in caplog.text


@pytest.mark.parametrize(
    ("settings", "received"),
    [
        ({"distillation": None}, "distillation weight None, monitor='loss'"),
        ({"distillation": Distillation(0.5)}, "distillation weight 0.5, monitor='loss'"),
        ({"monitor": "accuracy"}, "distillation weight 1, monitor='accuracy'"),
    ],
)
def test_recipes_that_need_labels_are_refused(settings: dict[str, Any], received: str) -> None:
    recipe = Recipe(**settings)
    assert recipe.needs_labels
    with pytest.raises(UserError, match=f"no labels, and the recipe needs them. Received: {received}"):
        require_label_free(recipe)
    for labelled in (True, False):
        with pytest.raises(UserError, match=f"Received: {received}"):
            tune(recipe, labelled=labelled, selection=not labelled)


def test_a_baseline_needs_labels() -> None:
    unlabelled = data(0, labelled=False).batch(8)
    with pytest.raises(UserError, match="no labels, and the recipe needs them"):
        train_baseline(make_model(1), lambda _: unlabelled, unlabelled, epochs=1, progress=False)


def test_a_stray_minus_one_is_no_missing_label() -> None:
    images = np.zeros((4, 6), "float32")
    batches = tf.data.Dataset.from_tensor_slices((images, [-1, 0, 1, 0])).batch(4)
    with pytest.raises(UserError, match="Received: labels from -1 to 1"):
        fine_tune(make_model(1), lambda _: batches, batches, RECIPE, teacher=make_model(2), progress=False)


def test_progress_names_no_accuracy(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tune(progress=True)
    lines = capsys.readouterr().err
    assert "accuracy" not in lines
    assert lines.count("selection loss") == 2
    assert lines.count("agreement") == 2
    assert "As given: selection loss" in caplog.text
    assert "accuracy" not in caplog.text

"""`keras-qat train` has all options of a recipe, as `run` has. Those not given are taken from the run."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import keras
import pytest

from keras_qat import Recipe
from keras_qat.cli.program import app, run_program
from keras_qat.errors import UserError
from keras_qat.run import OPTIONS as RUN_OPTIONS
from keras_qat.run import RunFolder, Settings, pipeline, train
from keras_qat.training import Distillation

# The seed also cuts the images, so a run keeps it.
OPTIONS = {
    *({field.name for field in fields(Recipe)} - {"seed"}),
    *({field.name for field in fields(Distillation)} - {"weight"}),
    *("augment", "devices"),
}

GIVEN: dict[str, Any] = {
    "epochs": 3,
    "steps_per_epoch": 7,
    "batch_size": 16,
    "accumulate": 2,
    "learning_rate": 1e-5,
    "optimizer": "sgd",
    "schedule": "cosine",
    "distillation": 0.5,
    "temperature": 2.0,
    "features": ("conv1_relu", "conv2_out"),
    "feature_weight": 0.25,
    "batch_norm": "train",
    "range_mode": "ema",
    "freeze_ranges_after": 2,
    "weight_decay": 1e-4,
    "clip_norm": 1.5,
    "label_smoothing": 0.1,
    "training_precision": "mixed_bfloat16",
    "monitor": "accuracy",
    "augment": "flip",
    "devices": 0,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with the files that the command checks before it trains."""
    (tmp_path / "settings.json").write_text(json.dumps({"target": "tensorrt", "skip_fine_tuning": True}))
    for name in ("baseline", "ptq"):
        (tmp_path / f"{name}.keras").write_bytes(b"a model")
    for name in ("placement", "preprocessing"):
        (tmp_path / f"{name}.json").write_text("{}")
    return tmp_path


def trained(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Settings:
    """The settings that the command would train with."""
    received = []

    def train(settings: Settings) -> None:
        received.append(settings)
        message = "That is far enough."
        raise UserError(message)

    monkeypatch.setattr("keras_qat.run.train", train)
    assert run_program(["train", *arguments], app) == 2
    (settings,) = received
    return settings


def spelled(name: str, value: Any) -> list[str]:
    """The arguments that give an option; an option of several values is given once for each."""
    values = value if isinstance(value, tuple) else (value,)
    return [text for item in values for text in (f"--{name.replace('_', '-')}", str(item))]


def test_every_setting_of_a_recipe_is_an_option() -> None:
    assert set(GIVEN) == OPTIONS
    offered = {argument.name for argument in app["train"].assemble_argument_collection()}
    assert offered >= {f"--{name.replace('_', '-')}" for name in OPTIONS}
    assert set(RUN_OPTIONS) >= OPTIONS


def test_what_is_given_is_trained_with(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [text for name, value in GIVEN.items() for text in spelled(name, value)]
    expected = Settings.of(target="tensorrt", run_folder=run, **GIVEN)
    assert trained(monkeypatch, str(run), *options) == expected


def test_what_is_not_given_is_as_the_run_was(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trained(monkeypatch, str(run)) == Settings.of(target="tensorrt", run_folder=run)


def test_models_that_do_not_belong_together_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example those of a run by an earlier version, which read the float model in another way."""
    for variant in ("baseline", "ptq"):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax", name=variant)])
        model.save(tmp_path / f"{variant}.keras")
    monkeypatch.setattr(RunFolder, "placement", lambda _: None)
    monkeypatch.setattr(RunFolder, "facts", lambda _: None)
    monkeypatch.setattr(pipeline, "load_saved", lambda _: None)
    with pytest.raises(UserError, match=r"made of another float model.* or quantize again"):
        train(Settings.of(run_folder=tmp_path, skip_fine_tuning=True))

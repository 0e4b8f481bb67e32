"""Recipes, optimizers and the choice of the best epoch."""

import json
from typing import Any

import pytest

from keras_qat.errors import UserError
from keras_qat.training import OPTIMIZERS, Distillation, EpochRecord, Recipe, make_optimizer
from keras_qat.training.checkpoint import History
from keras_qat.types import Monitor


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": ((1.0, 1.0), (0.1, 2.0)), "steps_per_epoch": 5},
        {"distillation": None, "label_smoothing": 0.1, "weight_decay": 1e-4, "clip_norm": 1.0},
        {"distillation": Distillation(0.5, 4.0, ("conv", "pool"), 0.1), "batch_norm": "freeze_after=2"},
        {"range_mode": "learned", "freeze_ranges_after": 3, "accumulate": 4, "training_precision": "mixed_bfloat16"},
    ],
)
def test_recipe_round_trips_through_json(settings: dict[str, Any]) -> None:
    recipe = Recipe(**settings)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert hash(recipe) == hash(Recipe.from_dict(recipe.to_dict()))


@pytest.mark.parametrize(
    "settings",
    [
        {"label_smoothing": 0.1, "distillation": Distillation(weight=0.9)},
        {"label_smoothing": 0.1, "distillation": None},
        {"freeze_ranges_after": 2, "range_mode": "ema"},
    ],
)
def test_settings_that_have_an_effect_are_fine(settings: dict[str, Any]) -> None:
    Recipe(**settings)


@pytest.mark.parametrize(
    "setting",
    [
        {"optimizer": "lion"},
        {"schedule": "stairs"},
        {"schedule": ()},
        {"learning_rate": 0.0},
        {"epochs": 0},
        {"steps_per_epoch": 0},
        {"batch_size": 0},
        {"seed": -1},
        {"momentum": 0.9},
        {"accumulate": 0},
        {"batch_norm": "thaw"},
        {"batch_norm": "freeze_after=0"},
        {"batch_norm": "freeze_after=-1"},
        {"batch_norm": "freeze_after="},
        {"range_mode": "free"},
        {"freeze_ranges_after": 0},
        {"weight_decay": -1e-4},
        {"weight_decay": float("nan")},
        {"clip_norm": 0.0},
        {"clip_norm": float("inf")},
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
        {"training_precision": "float16"},
        {"monitor": "agreement"},
        {"label_smoothing": 0.1, "distillation": {"weight": 1.0}},
        {"freeze_ranges_after": 2},
        {"distillation": {"weight": 0.0}},
        {"distillation": {"weight": 1.1}},
        {"distillation": {"temperature": 0.0}},
        {"distillation": {"temperature": float("inf")}},
        {"distillation": {"feature_weight": -1.0}},
        {"distillation": {"features": ["conv"], "alpha": 0.5}},
    ],
)
def test_recipe_refuses(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="Received: "):
        Recipe.from_dict(setting)


def test_a_part_of_a_recipe_takes_the_rest_from_the_defaults() -> None:
    part = Recipe.from_dict({"distillation": {"temperature": 2.0}})
    assert part == Recipe(distillation=Distillation(temperature=2.0))
    assert Recipe.from_dict({"distillation": None}).distillation is None
    assert Recipe.from_dict({}) == Recipe()


def test_optimizers() -> None:
    kinds = {name: (type(make_optimizer(name, 0.1)).__name__) for name in OPTIMIZERS}
    assert kinds == {"sgd-momentum": "SGD", "sgd": "SGD", "adam": "Adam"}
    assert (make_optimizer("sgd-momentum", 0.1).momentum, make_optimizer("sgd", 0.1).momentum) == (0.9, 0.0)
    with pytest.raises(UserError, match="sgd-momentum, sgd, adam"):
        make_optimizer("lion", 0.1)


@pytest.mark.parametrize(
    ("selection", "by_accuracy", "by_loss"),
    [
        ([(0.9, 0.5), (0.9, 0.5)], 0, 0),  # an exact tie keeps the model as given
        ([(0.9, 0.5), (0.9, 0.4), (0.9, 0.4)], 1, 1),
        ([(0.9, 0.5), (0.8, 0.1)], 0, 1),
        ([(0.9, 0.5), (0.8, 0.1), (0.91, 2.0)], 2, 1),
        ([(0.9, 0.5), (0.8, 0.5), (0.95, 0.5)], 2, 2),
    ],
)
@pytest.mark.parametrize("monitor", ["accuracy", "loss"])
def test_best_epoch(selection: list[tuple[float, float]], by_accuracy: int, by_loss: int, monitor: Monitor) -> None:
    history = History(monitor=monitor)
    for epoch, (accuracy, loss) in enumerate(selection):
        history = history.with_record(EpochRecord(epoch, None, None, None, loss, accuracy, 1.0))
    assert history.best_epoch == {"accuracy": by_accuracy, "loss": by_loss}[monitor]
    assert History.from_list(json.loads(json.dumps(history.to_list())), monitor) == history


def test_a_broken_model_is_named_at_epoch_0() -> None:
    with pytest.raises(UserError, match="check its weights and ranges"):
        History().with_record(EpochRecord(0, None, None, None, float("nan"), 0.1, 1.0))

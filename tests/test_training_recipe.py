"""Recipes, optimizers and the choice of the best epoch."""

import json
from typing import Any

import pytest

from keras_qat.errors import UserError
from keras_qat.training.history import EpochRecord, History
from keras_qat.training.optimizers import OPTIMIZERS, make_optimizer
from keras_qat.training.recipe import Recipe


def test_recipe_round_trips_through_json() -> None:
    recipe = Recipe(schedule=((1.0, 1.0), (0.1, 2.0)), steps_per_epoch=5)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert hash(recipe) == hash(Recipe.from_dict(recipe.to_dict()))


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
    ],
)
def test_recipe_refuses(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="Received: "):
        Recipe.from_dict(setting)


def test_optimizers() -> None:
    kinds = {name: (type(make_optimizer(name, 0.1)).__name__) for name in OPTIMIZERS}
    assert kinds == {"sgd-momentum": "SGD", "sgd": "SGD", "adam": "Adam"}
    assert (make_optimizer("sgd-momentum", 0.1).momentum, make_optimizer("sgd", 0.1).momentum) == (0.9, 0.0)
    with pytest.raises(UserError, match="sgd-momentum, sgd, adam"):
        make_optimizer("lion", 0.1)


@pytest.mark.parametrize(
    ("selection", "best"),
    [
        ([(0.9, 0.5), (0.9, 0.5)], 0),  # an exact tie keeps the model as given
        ([(0.9, 0.5), (0.9, 0.4), (0.9, 0.4)], 1),
        ([(0.9, 0.5), (0.8, 0.1)], 0),
        ([(0.9, 0.5), (0.8, 0.1), (0.91, 2.0)], 2),
    ],
)
def test_best_epoch(selection: list[tuple[float, float]], best: int) -> None:
    history = History()
    for epoch, (accuracy, loss) in enumerate(selection):
        history = history.with_record(EpochRecord(epoch, None, None, None, loss, accuracy, 1.0))
    assert history.best_epoch == best
    assert History.from_list(json.loads(json.dumps(history.to_list()))) == history


def test_a_broken_model_is_named_at_epoch_0() -> None:
    with pytest.raises(UserError, match="check its weights and ranges"):
        History().with_record(EpochRecord(0, None, None, None, float("nan"), 0.1, 1.0))

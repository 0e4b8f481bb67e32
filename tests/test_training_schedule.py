"""Schedules compared with a table computed by hand, and their round trips."""

from typing import Any

import keras
import pytest

from keras_qat.errors import UserError
from keras_qat.training import PiecewiseWithWarmup, make_schedule, parse_schedule

# 4 steps an epoch, rate 0.8, pieces 1.0@1, 0.1@2, 0.01@7.
BY_HAND = {
    0: 0.0,
    1: 0.2,
    2: 0.4,
    3: 0.6,
    4: 0.8,
    7: 0.8,
    8: 0.08,
    27: 0.08,
    28: 0.008,
    1000: 0.008,
}


@pytest.mark.parametrize(("step", "rate"), BY_HAND.items())
@pytest.mark.parametrize("given", ["piecewise", "1.0@1,0.1@2,0.01@7", [(1.0, 1), (0.1, 2), (0.01, 7)]])
def test_piecewise_matches_the_table(given: Any, step: int, rate: float) -> None:
    assert float(make_schedule(given, 0.8, 4, 10)(step)) == pytest.approx(rate, rel=1e-6)


def test_warm_up_over_two_epochs_is_linear_to_the_first_multiplier() -> None:
    schedule = PiecewiseWithWarmup(1.0, 10, [(0.5, 2), (0.1, 3.5)])
    rates = [float(schedule(step)) for step in (0, 5, 10, 20, 34, 35)]
    assert rates == pytest.approx([0.0, 0.125, 0.25, 0.5, 0.5, 0.1])


def test_a_boundary_falls_on_its_step_for_awkward_lengths() -> None:
    for steps in (3, 7, 1171, 5004):
        schedule = PiecewiseWithWarmup(1.0, steps, [(1.0, 1), (0.1, 49)])
        assert float(schedule(49 * steps - 1)) == 1.0
        assert float(schedule(49 * steps)) == pytest.approx(0.1)


def test_constant_and_cosine() -> None:
    constant = make_schedule("constant", 0.3, 5, 2)
    assert [float(constant(step)) for step in (0, 1, 100)] == pytest.approx([0.3] * 3)
    cosine = make_schedule("cosine", 0.3, 5, 2)
    # after a fifth of the steps, cos(pi / 5) = 0.809017
    assert [float(cosine(step)) for step in (0, 2, 10)] == pytest.approx([0.3, 0.15 * 1.809017, 0.0], abs=1e-7)


def test_round_trip_through_keras_serialization() -> None:
    schedule = PiecewiseWithWarmup(0.5, 10, [(1.0, 1), (0.1, 2)])
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert again.get_config() == schedule.get_config()
    optimizer = keras.optimizers.SGD(schedule)
    copied = keras.optimizers.SGD.from_config(optimizer.get_config())
    assert float(copied.learning_rate) == 0.0


def test_parse() -> None:
    assert parse_schedule("1.0@1, 0.1@2,0.01@7") == ((1.0, 1.0), (0.1, 2.0), (0.01, 7.0))
    assert [parse_schedule(name) for name in ("piecewise", " cosine", "constant")] == [
        "piecewise",
        "cosine",
        "constant",
    ]


@pytest.mark.parametrize(
    "text", ["", "step", "1.0", "1@2@3", "1@2,0.1@2", "1@2,0.1@1", "-1@1", "0@1", "nan@1", "1@-1", "1@inf"]
)
def test_what_cannot_be_parsed(text: str) -> None:
    with pytest.raises(UserError, match="Received: "):
        parse_schedule(text)


@pytest.mark.parametrize(
    "arguments",
    [("cosine", 0.0, 1, 1), ("cosine", float("nan"), 1, 1), ("constant", 0.1, 0, 1), ("cosine", 0.1, 1, 0)],
)
def test_settings_out_of_range(arguments: tuple[str, float, int, int]) -> None:
    with pytest.raises(UserError, match="Received: "):
        make_schedule(*arguments)


def test_warmup_cosine_against_a_table_worked_by_hand() -> None:
    """Of twenty steps, two rise; then half a cosine takes eighteen: (1 + cos(π k / 18)) / 2 at step 2 + k."""
    schedule = make_schedule("warmup-cosine", 0.1, steps_per_epoch=10, epochs=2)
    rates = {0: 0.1 / 3, 1: 0.2 / 3, 2: 0.1, 8: 0.075, 11: 0.05, 14: 0.025, 20: 0.0}
    for step, rate in rates.items():
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-7), step


def test_warmup_cosine_of_a_single_step_trains() -> None:
    schedule = make_schedule("warmup-cosine", 0.1, steps_per_epoch=1, epochs=1)
    assert [float(schedule(step)) for step in (0, 1)] == pytest.approx([0.05, 0.1])

"""Intervals and tests of accuracies, against closed forms, a published example and enumeration of all outcomes."""

import json
import math
from functools import cache

import numpy as np
import pytest
from scipy.stats import multinomial

from keras_qat.errors import DataError
from keras_qat.evaluation import Predictions, compare, proportion
from keras_qat.evaluation.comparison import difference_interval, mcnemar

Z = 1.959963984540054
"""The 97.5% quantile of the normal distribution."""


@pytest.mark.parametrize(("count", "images"), [(0, 10), (1, 10), (346, 360), (360, 360), (38_000, 50_000)])
def test_the_ends_of_the_wilson_interval_are_just_not_rejected(count: int, images: int) -> None:
    share = proportion(count, images)
    assert 0 <= share.low <= share.value <= share.high <= 1
    for end in {share.low, share.high} - {0.0, 1.0}:
        error = Z * math.sqrt(end * (1 - end) / images)
        assert abs(count / images - end) == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize(("count", "images"), [(0, 0), (-1, 5), (6, 5)])
def test_a_share_of_nothing_is_refused(count: int, images: int) -> None:
    with pytest.raises(DataError, match=rf"Received: {count} of {images}"):
        proportion(count, images)


def test_mcnemar_is_the_sum_of_binomials() -> None:
    for b in range(13):
        for c in range(13):
            m = b + c
            # All splits of m images that are at least as uneven.
            uneven = sum(math.comb(m, i) for i in range(m + 1) if abs(2 * i - m) >= abs(b - c))
            assert mcnemar(b, c) == pytest.approx(uneven / 2**m, rel=1e-12)


def test_published_example() -> None:
    """Agresti, "Categorical Data Analysis", 2nd edition, section 10.1: approval of the British prime minister.

    Of 1600 voters 944 approved at first and 880 in a second poll, 150 and 86 only in one of them; the 95% interval of
    the difference is 0.02 to 0.06, and the square of McNemar's statistic 17.36, with p < 0.001.
    """
    low, high = difference_interval(150, 86, 1600)
    assert (round(low, 2), round(high, 2)) == (0.02, 0.06)
    # The normal approximation of p, at 17.36.
    assert mcnemar(150, 86) == pytest.approx(math.erfc(math.sqrt(17.36 / 2)), rel=0.3)


@cache
def outcomes(n: int) -> np.ndarray:
    """All (b, c, rest) of n images."""
    return np.array([(b, c, n - b - c) for b in range(n + 1) for c in range(n + 1 - b)])


@pytest.mark.parametrize("chances", [(0.02, 0.02), (0.05, 0.1), (0.1, 0.1), (0.02, 0.2), (0.3, 0.25)])
def test_the_interval_covers_the_true_difference(chances: tuple[float, float]) -> None:
    n, (p_b, p_c) = 50, chances
    probabilities = multinomial.pmf(outcomes(n), n, [p_b, p_c, 1 - p_b - p_c])
    ends = np.array([difference_interval(int(b), int(c), n) for b, c, _ in outcomes(n)])
    coverage = float(probabilities[(ends[:, 0] <= p_b - p_c) & (p_b - p_c <= ends[:, 1])].sum())
    # Where the two differ on only a few images, the added halves make the interval wider than necessary.
    few = n * (p_b + p_c) < 5
    assert 0.945 <= coverage <= (1.0 if few else 0.965)


@pytest.mark.parametrize("chance", [0.01, 0.05, 0.2])
def test_equal_models_differ_in_at_most_one_of_twenty_cases(chance: float) -> None:
    n = 40
    probabilities = multinomial.pmf(outcomes(n), n, [chance, chance, 1 - 2 * chance])
    rejected = np.array([mcnemar(int(b), int(c)) < 0.05 for b, c, _ in outcomes(n)])
    assert float(probabilities[rejected].sum()) <= 0.05


def predictions(classes: np.ndarray, labels: np.ndarray) -> Predictions:
    return Predictions(classes[:, np.newaxis], labels)


def test_the_table_counts_each_image_once() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 200)
    first, second = (np.where(rng.random(200) < 0.7, labels, rng.integers(0, 4, 200)) for _ in range(2))
    comparison = compare(predictions(first, labels), predictions(second, labels))
    cases = [(a == y, b == y) for a, b, y in zip(first, second, labels, strict=True)]
    assert comparison.both_right == cases.count((True, True))
    assert comparison.only_first == cases.count((True, False))
    assert comparison.only_second == cases.count((False, True))
    assert comparison.both_wrong == cases.count((False, False))
    assert comparison.agreement.count == sum(int(a == b) for a, b in zip(first, second, strict=True))
    assert comparison.difference == pytest.approx(np.mean(first == labels) - np.mean(second == labels))
    assert comparison.low < comparison.difference < comparison.high


def test_the_other_way_round_changes_only_the_sign() -> None:
    labels = np.zeros(100, int)
    first, second = (predictions((np.arange(100) < wrong).astype(int), labels) for wrong in (5, 25))
    forth, back = compare(first, second), compare(second, first)
    assert (forth.difference, forth.low, forth.high) == (-back.difference, -back.high, -back.low)
    assert forth.p_value == back.p_value == pytest.approx(2 / 2**20)
    assert forth.shown
    assert back.shown


def test_equal_answers_show_no_difference() -> None:
    same = predictions(np.array([0, 1, 1]), np.array([0, 0, 1]))
    comparison = compare(same, same)
    assert (comparison.p_value, comparison.difference, comparison.shown) == (1.0, 0.0, False)
    assert comparison.low == -comparison.high < 0
    assert comparison.agreement.value == 1


def test_the_comparison_is_json() -> None:
    labels = np.array([0, 0, 1, 1])
    comparison = compare(predictions(np.array([0, 0, 1, 0]), labels), predictions(np.array([1, 1, 1, 0]), labels))
    record = json.loads(json.dumps(comparison.to_dict()))
    assert (record["both_right"], record["only_first_right"], record["only_second_right"]) == (1, 2, 0)
    assert record["difference"]["value"] == 0.5
    assert record["mcnemar_p"] == 0.5
    assert record["difference_shown"] is False


def test_other_images_or_none_are_refused() -> None:
    first = predictions(np.array([0, 1]), np.array([0, 1]))
    with pytest.raises(DataError, match="same images"):
        compare(first, predictions(np.array([0, 1]), np.array([1, 0])))
    none = predictions(np.zeros(0, int), np.zeros(0, int))
    with pytest.raises(DataError, match="Received: 0 of 0"):
        compare(none, none)

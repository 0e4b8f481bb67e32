"""Figures of every kind of task, against closed forms, scikit-learn and SciPy; data and labels that don't fit."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import confusion_matrix, jaccard_score

from keras_qat.errors import DataError, UnsupportedModelError
from keras_qat.evaluation import Figure, OutputScores, judge
from keras_qat.evaluation.judges import confusion
from keras_qat.evaluation.output_scores import mean_figure
from keras_qat.files import from_json_value, to_json_value
from keras_qat.runtimes import Runtime, TensorSpec
from keras_qat.types import OutputTask, ScoreMeaning

RNG = np.random.default_rng(0)
MASK = OutputTask("mask", "segmentation", "classes")
BOX = OutputTask("box", "regression")
CLASS = OutputTask("class", "classification", "classes")


class Stored(Runtime):
    """Gives stored outputs for rows that are numbered, in batches of a fixed size if one is given."""

    def __init__(self, *outputs: np.ndarray, batch: int | None = None, inputs: int = 1) -> None:
        specs = tuple(TensorSpec(f"x{i}", (batch, 1), np.dtype("int64")) for i in range(inputs))
        super().__init__("stored", "CPU", specs, tuple(TensorSpec("y", a.shape, a.dtype) for a in outputs))
        self._stored = outputs

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return tuple(array[inputs[0][:, 0]] for array in self._stored)


def batches(*labels: np.ndarray, size: int = 4, inputs: int = 1) -> list[tuple[Any, Any]]:
    """Rows by their numbers, with labels for each output."""
    rows = np.arange(len(labels[0]))[:, None]
    cuts = [slice(start, start + size) for start in range(0, len(rows), size)]
    xs = [rows[cut] if inputs == 1 else (rows[cut],) * inputs for cut in cuts]
    return [
        (x, labels[0][cut] if len(labels) == 1 else tuple(y[cut] for y in labels))
        for x, cut in zip(xs, cuts, strict=True)
    ]


def unlabelled(count: int) -> np.ndarray:
    return np.full(count, -1, np.int32)


def scored(maps: np.ndarray, classes: int) -> np.ndarray:
    """Scores whose best classes are these."""
    return np.eye(classes, dtype=np.float32)[maps] + RNG.uniform(0, 0.4, (*maps.shape, classes)).astype(np.float32)


# --- segmentation -----------------------------------------------------------------------------------------------------

LABELS = RNG.integers(0, 3, (10, 6, 5))
MADE = np.where(RNG.random(LABELS.shape) < 0.8, LABELS, RNG.integers(0, 3, LABELS.shape))
FLOAT = np.where(RNG.random(LABELS.shape) < 0.9, LABELS, RNG.integers(0, 3, LABELS.shape))


def segmented(labels: np.ndarray, classes: int = 3, **options: Any) -> OutputScores:
    models = {"Baseline": Stored(scored(FLOAT, classes), **options), "PTQ": Stored(scored(MADE, classes), **options)}
    return judge(models, batches(labels), [MASK])["PTQ"][0]


def test_segmentation_against_scikit_learn() -> None:
    scores = segmented(LABELS)
    assert scores.value("mean_iou") == pytest.approx(jaccard_score(LABELS.ravel(), MADE.ravel(), average="macro"))
    assert scores.value("model_iou") == pytest.approx(jaccard_score(FLOAT.ravel(), MADE.ravel(), average="macro"))
    assert scores.value("pixel_accuracy") == pytest.approx(np.mean(MADE == LABELS))
    assert scores.value("agreement") == pytest.approx(np.mean(MADE == FLOAT))
    each = [
        [jaccard_score(y.ravel(), p.ravel(), average="macro") for y, p in zip(LABELS, m, strict=True)]
        for m in (MADE, FLOAT)
    ]
    test = ttest_1samp(each[0], 0).confidence_interval(0.95)
    assert scores.figures["image_iou"] == Figure(
        pytest.approx(np.mean(each[0])), pytest.approx(test.low), pytest.approx(test.high)
    )
    paired = ttest_1samp(np.subtract(*each), 0).confidence_interval(0.95)
    assert (scores.differences["image_iou"].low, scores.differences["image_iou"].high) == pytest.approx(tuple(paired))


@pytest.mark.parametrize("without", [-1, 255])
def test_positions_without_a_class_are_not_counted(without: int) -> None:
    hidden = RNG.random(LABELS.shape) < 0.3
    scores = segmented(np.where(hidden, without, LABELS))
    expected = jaccard_score(LABELS[~hidden], MADE[~hidden], average="macro")
    assert scores.value("mean_iou") == pytest.approx(expected)
    assert scores.value("agreement") == pytest.approx(np.mean(MADE == FLOAT))


def test_classes_that_nothing_has_are_not_in_the_mean() -> None:
    assert segmented(LABELS, classes=7).value("mean_iou") == pytest.approx(segmented(LABELS).value("mean_iou"))


def test_a_mask_without_any_class_has_no_figures() -> None:
    scores = segmented(np.full(LABELS.shape, 255))
    assert [scores.value(name) for name in ("mean_iou", "image_iou", "pixel_accuracy")] == [None] * 3


def test_confusion_against_scikit_learn() -> None:
    assert np.array_equal(confusion(LABELS, MADE, 4), confusion_matrix(LABELS.ravel(), MADE.ravel(), labels=range(4)))


@pytest.mark.parametrize(("meaning", "threshold"), [("probability", 0.5), ("logit", 0.0)])
@pytest.mark.parametrize("kind", [np.uint8, bool])
def test_masks_of_two_classes_with_a_single_score(meaning: ScoreMeaning, threshold: float, kind: type) -> None:
    output = RNG.uniform(threshold - 0.5, threshold + 0.5, (6, 4, 4, 1)).astype(np.float32)
    labels = RNG.integers(0, 2, (6, 4, 4, 1)).astype(kind)
    (scores,) = judge({"PTQ": Stored(output)}, batches(labels), [OutputTask("mask", "segmentation", meaning)])["PTQ"]
    assert scores.value("pixel_accuracy") == pytest.approx(np.mean((output > threshold) == labels))
    assert set(scores.figures) == {"mean_iou", "image_iou", "pixel_accuracy"}


# --- regression -------------------------------------------------------------------------------------------------------

TRUTH = RNG.normal(size=(9, 3, 2))
NUMBERS = (TRUTH + RNG.normal(0, 0.3, TRUTH.shape)).astype(np.float32)
OTHER = (TRUTH + RNG.normal(0, 0.2, TRUTH.shape)).astype(np.float32)


def test_regression_against_closed_forms() -> None:
    models = {"Baseline": Stored(OTHER), "PTQ": Stored(NUMBERS)}
    (scores,) = judge(models, batches(TRUTH.reshape(9, 6)), [BOX])["PTQ"]
    x, r = NUMBERS.astype(np.float64), OTHER.astype(np.float64)
    assert scores.value("sqnr") == pytest.approx(10 * np.log10(np.sum(r**2) / np.sum((r - x) ** 2)))
    assert scores.value("mean_error") == pytest.approx(np.mean(np.abs(x - r)))
    assert scores.value("largest_error") == pytest.approx(np.max(np.abs(x - r)))
    cosine = [np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2)) for a, b in zip(x, r, strict=True)]
    assert scores.value("cosine") == pytest.approx(np.mean(cosine))
    assert scores.value("mae") == pytest.approx(np.mean(np.abs(x - TRUTH)))
    assert scores.value("rmse") == pytest.approx(np.sqrt(np.mean((x - TRUTH) ** 2)))
    each = np.mean(np.abs(x - TRUTH) - np.abs(r - TRUTH), (1, 2))
    paired = ttest_1samp(each, 0).confidence_interval(0.95)
    assert (scores.differences["mae"].low, scores.differences["mae"].high) == pytest.approx(tuple(paired))


def test_equal_numbers_and_zeros() -> None:
    zeros = np.zeros((4, 3), np.float32)
    (scores,) = judge({"Baseline": Stored(zeros), "PTQ": Stored(zeros)}, batches(unlabelled(4)), [BOX])["PTQ"]
    assert {name: figure.value for name, figure in scores.figures.items()} == {
        "sqnr": 200.0, "mean_error": 0.0, "largest_error": 0.0, "cosine": 1.0,
    }  # fmt: skip
    (scores,) = judge({"Baseline": Stored(zeros), "PTQ": Stored(zeros + 1)}, batches(unlabelled(4)), [BOX])["PTQ"]
    assert (scores.value("sqnr"), scores.value("cosine")) == (None, 0.0)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_numbers_that_are_not_finite_have_no_figures(broken: float) -> None:
    spoilt = NUMBERS.copy()
    spoilt[3, 0, 0] = broken
    (scores,) = judge({"Baseline": Stored(OTHER), "PTQ": Stored(spoilt)}, batches(TRUTH), [BOX])["PTQ"]
    assert {figure.value for figure in scores.figures.values()} == {None}
    assert scores.differences["mae"].value is None


# --- classification ---------------------------------------------------------------------------------------------------


def test_classes_against_counts() -> None:
    labels, made, other = (RNG.integers(0, 8, 40) for _ in range(3))
    models = {"Baseline": Stored(scored(other, 8)), "PTQ": Stored(scored(made, 8))}
    (scores,) = judge(models, batches(labels), [CLASS])["PTQ"]
    assert scores.value("top1") == np.mean(made == labels)
    assert scores.value("agreement") == np.mean(made == other)
    assert scores.differences["top1"].value == pytest.approx(np.mean(made == labels) - np.mean(other == labels))
    top5, sqnr = scores.value("top5"), scores.value("sqnr")
    assert top5 is not None
    assert top5 > np.mean(made == labels)
    assert sqnr is not None


# --- several outputs and inputs, batches ------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("batch", [None, 3, 8])
def test_several_outputs_at_any_batch(batch: int | None, inputs: int) -> None:
    labels = RNG.integers(0, 3, 9)
    outputs = (scored(MADE[:9], 3), NUMBERS, scored(labels, 3))
    runtime = Stored(*outputs, batch=batch, inputs=inputs)
    data = batches(LABELS[:9], TRUTH, labels, inputs=inputs)
    found = judge({"PTQ": runtime}, data, [MASK, BOX, CLASS])["PTQ"]
    assert [(one.output, one.kind, one.images) for one in found] == [
        ("mask", "segmentation", 9), ("box", "regression", 9), ("class", "classification", 9),
    ]  # fmt: skip
    assert found[0].value("pixel_accuracy") == pytest.approx(np.mean(MADE[:9] == LABELS[:9]))
    assert found[1].value("mae") == pytest.approx(np.mean(np.abs(NUMBERS - TRUTH)))
    assert found[2].value("top1") == 1.0


def test_an_output_without_labels_beside_one_with_labels() -> None:
    runtime = Stored(scored(MADE[:9], 3), NUMBERS)
    mask, box = judge({"PTQ": runtime}, batches(unlabelled(9), TRUTH), [MASK, BOX])["PTQ"]
    assert (mask.figures, set(box.figures)) == ({}, {"mae", "rmse"})
    assert judge({"PTQ": runtime}, batches(unlabelled(9)), [MASK, BOX])["PTQ"][1].figures == {}


@pytest.mark.parametrize(
    ("outputs", "labels", "tasks", "parts"),
    [
        ([scored(MADE, 3)], [LABELS[:, :3]], [MASK], ["'mask'", "shape (4, 3, 5)", "resize a mask"]),
        ([scored(MADE, 3)], [LABELS.astype("float32")], [MASK], ["float32 labels", 'astype("int32")']),
        ([scored(MADE, 3)], [LABELS + 1], [MASK], ["tells 3 classes apart", "label of 3", "from 0 to 2; -1 and 255"]),
        ([scored(LABELS[:, 0, 0], 3)], [np.eye(3)[LABELS[:, 0, 0]]], [CLASS], ["'class'", "np.argmax(labels, -1)"]),
        ([scored(LABELS[:, 0, 0], 3)], [LABELS[:, 0, 0] + 3], [CLASS], ["from 0 to 2; -1 stands for no class"]),
        ([NUMBERS], [TRUTH[:, :2]], [BOX], ["'box'", "shape (4, 3, 2)", "(4, 2, 2)", "as many numbers"]),
        ([NUMBERS], [TRUTH * np.nan], [BOX], ["not finite", "nan"]),
        ([NUMBERS, NUMBERS], [TRUTH], [BOX, BOX], ["2 output(s)", "1 array(s) of labels"]),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit(outputs: Any, labels: Any, tasks: Any, parts: list[str]) -> None:
    with pytest.raises(DataError, match="Received: ") as caught:
        judge({"PTQ": Stored(*outputs)}, batches(*labels), tasks)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_no_data_and_wrong_models() -> None:
    with pytest.raises(DataError, match="Received: 0 images"):
        judge({"PTQ": Stored(NUMBERS)}, [], [BOX])
    with pytest.raises(UnsupportedModelError, match="Received: 2 tasks for PTQ"):
        judge({"PTQ": Stored(NUMBERS)}, batches(TRUTH), [BOX, BOX])
    with pytest.raises(UnsupportedModelError, match="of shape"):
        judge({"PTQ": Stored(NUMBERS)}, batches(TRUTH), [CLASS])
    with pytest.raises(DataError, match="Received: 2 arrays"):
        judge({"PTQ": Stored(NUMBERS)}, batches(TRUTH, inputs=2), [BOX])


# --- values -----------------------------------------------------------------------------------------------------------


def test_an_interval_needs_two_images() -> None:
    assert mean_figure(np.array([0.5])) == Figure(0.5)
    assert mean_figure(np.array([])) == Figure(None)
    assert mean_figure(np.array([0.9, 1.0, 1.0]), (0.0, 1.0)).high == 1.0


def test_scores_are_read_back_from_json() -> None:
    scores = segmented(LABELS)
    assert from_json_value(OutputScores, to_json_value(scores)) == scores

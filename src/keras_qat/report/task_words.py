"""What a model that isn't a classifier with one output costs in accuracy: sentences, key figures and intervals.

Two models are compared sample by sample: the difference of a variant from the float model has the 95% interval of
`evaluation.OutputScores`, and is "within the noise" if that interval holds 0.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from keras_qat.evaluation import Figure, OutputScores
from keras_qat.report.cell_text import NOTHING, decibel_text, number_text, percent_text
from keras_qat.report.record import Record, Row
from keras_qat.report.task_tables import prefix
from keras_qat.types import TaskKind


@dataclass(frozen=True)
class Quality:
    """The figure that says how good an output is, if there are labels.

    Args:
        title: what sentences call it.
        figure: its name.
        paired: the name of the figure that is compared sample by sample.
        text: a value as text.
        distance: a difference as text, without its sign.
        scale: what a chart multiplies it with.
        unit: of the chart's axis.
    """

    title: str
    figure: str
    paired: str
    text: Callable[[float], str]
    distance: Callable[[float], str]
    scale: float = 1.0
    unit: str = ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(share: float) -> str:
    return f"{100 * abs(share):.1f} points"


def _number(number: float) -> str:
    return f"{number:.3g}"


QUALITIES: Mapping[TaskKind, Quality] = {
    "classification": Quality("top-1", "top1", "top1", _percent, _points, 100.0, ", %"),
    "segmentation": Quality("mean IoU", "mean_iou", "image_iou", _percent, _points, 100.0, ", %"),
    "regression": Quality("MAE", "mae", "mae", _number, lambda number: _number(abs(number))),
}


@dataclass(frozen=True)
class Closeness:
    """How close an output is to the float model's, for which no labels are needed.

    Args:
        title: a key figure's label.
        figure: the name of the figure.
        text: its value as text.
        note: what stands beside it.
        sentence: what is said of the output "against the float model".
        charted: title and name of the figure with an interval, its scale and unit.
    """

    title: str
    figure: str
    text: Callable[[float | None], str]
    note: Callable[[OutputScores], str]
    sentence: str
    charted: tuple[str, str, float, str]


def _interval(scores: OutputScores) -> str:
    figure = scores.figures["agreement"]
    return "" if figure.low is None or figure.high is None else f"95% interval {_ends(figure, _percent)}"


def _ends(figure: Figure, text: Callable[[float], str]) -> str:
    """The ends of an interval; figures without an interval have no text."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{text(figure.low)} to {text(figure.high)}".replace("% to", " to")


_AGREEMENT = ("agreement with float", "agreement", 100.0, ", %")

CLOSENESS: Mapping[TaskKind, Closeness] = {
    "classification": Closeness(
        "Agreement with float",
        "agreement",
        lambda share: NOTHING if share is None else _percent(share),
        _interval,
        "the same class on {value} of the samples",
        _AGREEMENT,
    ),
    "segmentation": Closeness(
        "Agreement with float",
        "agreement",
        lambda share: NOTHING if share is None else _percent(share),
        _interval,
        "the same class at {value} of the positions",
        _AGREEMENT,
    ),
    "regression": Closeness(
        "SQNR against float",
        "sqnr",
        decibel_text,
        lambda scores: f"largest error {number_text(scores.value('largest_error'))}",
        "an SQNR of {value}, {note}",
        ("mean error against float", "mean_error", 1.0, ""),
    ),
}


def task_accuracy(record: Record, chosen: Row, baseline: Row) -> str:
    """What a variant costs at each output that has labels, in a sentence without its full stop."""
    costs = [
        f"{prefix(record, i)}{cost}"
        for i, pair in enumerate(zip(chosen.outputs, baseline.outputs, strict=False))
        if (cost := _costs(*pair))
    ]
    return "; ".join(costs) or "there are no labels, so accuracy isn't known"


def _costs(after: OutputScores, before: OutputScores) -> str:
    quality = QUALITIES[after.kind]
    values = after.value(quality.figure), before.value(quality.figure)
    if values[0] is None or values[1] is None:
        return ""
    compared = f"{quality.title} {quality.text(values[0])} against {quality.text(values[1])}"
    difference = after.differences.get(quality.paired)
    if difference is None or difference.value is None or difference.low is None or difference.high is None:
        return compared
    if difference.low <= 0 <= difference.high:
        return f"{compared}: within the noise of {after.images} samples"
    direction = "lower" if difference.value < 0 else "higher"
    return (
        f"{compared}: sample by sample {quality.distance(difference.value)} {direction}, more than the noise of "
        f"{after.images} samples"
    )


def task_closeness(record: Record, chosen: Row) -> tuple[str, ...]:
    """How close each output of a variant is to the float model, in a sentence; none if the float model was skipped."""
    found = []
    for i, scores in enumerate(chosen.outputs):
        closeness = CLOSENESS[scores.kind]
        if closeness.figure in scores.figures:
            value = closeness.text(scores.value(closeness.figure))
            said = closeness.sentence.format(value=value, note=closeness.note(scores))
            found.append(f"{prefix(record, i)}{said}")
    return (f"Against the float model, {'; '.join(found)}.",) if found else ()


def task_alone(record: Record, chosen: Row) -> str:
    """The accuracy of a variant without a float model beside it; empty without labels."""
    found = []
    for i, scores in enumerate(chosen.outputs):
        quality = QUALITIES[scores.kind]
        value = scores.value(quality.figure)
        if value is not None:
            found.append(f"{prefix(record, i)}{quality.title} {quality.text(value)}")
    return "".join(f"; {one}" for one in found)


def task_figures(record: Record, chosen: Row, baseline: Row) -> Iterator[tuple[str, str, str]]:
    """(label, value, note) of the key figures of each output."""
    for i, (after, before) in enumerate(zip(chosen.outputs, baseline.outputs, strict=False)):
        quality, closeness = QUALITIES[after.kind], CLOSENESS[after.kind]
        of = f", {record.tasks[i].output}" if len(record.tasks) > 1 else ""
        new, old = after.value(quality.figure), before.value(quality.figure)
        if new is not None and old is not None:
            sign = "−" if new < old else "+"
            yield (
                f"{_capital(quality.title)}{of}",
                f"{sign}{quality.distance(new - old)}",
                f"{quality.text(old)} → {quality.text(new)}",
            )
        if closeness.figure in after.figures:
            value = closeness.text(after.value(closeness.figure))
            yield f"{closeness.title}{of}", value, closeness.note(after)


def _capital(title: str) -> str:
    return title[0].upper() + title[1:]


@dataclass(frozen=True)
class Interval:
    """One figure of one row with its interval.

    Args:
        variant: name of the row.
        where: "Keras" or "deployed".
        figure: the value and its interval.
        text: both, as a report writes them.
        label: the value alone.
    """

    variant: str
    where: str
    figure: Figure
    text: str
    label: str


@dataclass(frozen=True)
class Intervals:
    """All variants of one output.

    Args:
        title: what the figure is, with its unit.
        scale: what a chart multiplies it with.
        rows: in Keras before deployed.
    """

    title: str
    scale: float
    rows: tuple[Interval, ...]


def task_intervals(record: Record) -> tuple[Intervals, ...]:
    """The figure of each output that is a mean over samples: the one against labels, or the closeness to float."""
    return tuple(
        found for i, task in enumerate(record.tasks) for found in [_intervals(record, i, task.kind)] if found.rows
    )


def _intervals(record: Record, output: int, kind: TaskKind) -> Intervals:
    quality = QUALITIES[kind]
    title = {"image_iou": "mean IoU of each sample"}.get(quality.paired, quality.title)
    labelled = (title, quality.paired, quality.scale, quality.unit)
    for name, figure, scale, unit in (labelled, CLOSENESS[kind].charted):
        rows = tuple(_rows(record, output, figure, percent=scale != 1))
        if rows:
            named = f"{prefix(record, output)}{name}" if len(record.tasks) > 1 else _capital(name)
            return Intervals(f"{named}{unit}, with 95% intervals", scale, rows)
    return Intervals("", 1.0, ())


def _rows(record: Record, output: int, name: str, *, percent: bool) -> Iterator[Interval]:
    text = percent_text if percent else number_text
    for row in record.rows:
        for where, scores in (("Keras", row.keras_outputs), ("deployed", row.outputs)):
            figure = scores[output].figures.get(name) if output < len(scores) else None
            if figure is not None and figure.value is not None:
                label = _percent(figure.value) if percent else _number(figure.value)
                ends = _ends(figure, _percent if percent else _number)
                yield Interval(row.name, where, figure, f"{text(figure.value)} ({ends or 'one sample'})", label)

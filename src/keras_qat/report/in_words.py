"""A run in plain words: how much faster and smaller, at what cost in accuracy, and where most of it is lost."""

from dataclasses import dataclass

from keras_qat.evaluation import Diagnosis, Proportion, proportion
from keras_qat.report.cell_text import percent_text
from keras_qat.report.record import Record, Row, chosen_row, float_row
from keras_qat.report.task_words import task_accuracy, task_alone, task_closeness, task_figures
from keras_qat.text import size_text

_SAME = 1.05
"""Ratios up to this are called the same: medians of a busy machine move by so much."""


def verdict(record: Record, diagnosis: Diagnosis | None = None) -> tuple[str, ...]:
    """Sentences about the last quantized row.

    "Within the noise" means inside the 95% interval of the float model's accuracy; for a model that isn't a classifier
    with one output, that the 95% interval of the difference, taken sample by sample, holds 0.

    Args:
        record: of a run.
        diagnosis: of the last quantized row, if there is one.
    """
    chosen, baseline = chosen_row(record), float_row(record)
    if chosen is None:
        return ("Only the float model was evaluated.",)
    name = f"INT8 ({chosen.name})"
    if baseline is None:
        costs = f"takes {chosen.deployed_latency.median_ms:.1f} ms an image and {size_text(chosen.size_bytes)}"
        first = f"{name} {costs}{_alone_accuracy(record, chosen)}. The run skipped the float model: nothing to compare."
    else:
        gains, accuracy = _gains(record, chosen, baseline), _accuracy(record, chosen, baseline)
        if len(record.tasks) > 1:  # The first sentence is a headline.
            return (f"{name} is {gains}.", f"{accuracy}.", *_closeness(record, chosen), *_where_most_is_lost(diagnosis))
        first = f"{name} is {gains}; {accuracy}."
    return (first, *_closeness(record, chosen), *_where_most_is_lost(diagnosis))


def _closeness(record: Record, chosen: Row) -> tuple[str, ...]:
    if record.tasks:
        return task_closeness(record, chosen)
    agreement = chosen.agreement
    return () if agreement is None else (f"It gives the float model's class on {_percent(agreement)} of the images.",)


def _gains(record: Record, chosen: Row, baseline: Row) -> str:
    smaller = _ratio(baseline.size_bytes / chosen.size_bytes, "smaller", "larger", "of the same size")
    if _is_half(record):
        return f"{smaller} than float (its FP16 file can't be timed here)"
    faster = _ratio(
        baseline.deployed_latency.median_ms / chosen.deployed_latency.median_ms, "faster", "slower", "no faster"
    )
    return f"{faster} and {smaller} than float".replace("of the same size than float", "of the same size as float")


def _accuracy(record: Record, chosen: Row, baseline: Row) -> str:
    if record.tasks:
        return task_accuracy(record, chosen, baseline)
    after, before = chosen.deployed_top1, baseline.deployed_top1
    if after is None or before is None:
        return "the images have no labels, so accuracy isn't known"
    compared = f"top-1 {_percent(after)} against {_percent(before)}"
    interval = share_of(before, record.images)
    if interval.low <= after <= interval.high:
        return f"{compared}: within the noise of {record.images} images"
    direction = "lower" if after < before else "higher"
    points = 100 * abs(after - before)
    return f"{compared}: {points:.1f} points {direction}, more than the noise of {record.images} images"


def _alone_accuracy(record: Record, chosen: Row) -> str:
    if record.tasks:
        return task_alone(record, chosen)
    if chosen.deployed_top1 is None:
        return ""
    interval = interval_text(share_of(chosen.deployed_top1, record.images))
    return f"; top-1 {_percent(chosen.deployed_top1)} (95% interval {interval})"


def _where_most_is_lost(diagnosis: Diagnosis | None) -> tuple[str, ...]:
    worst = () if diagnosis is None else diagnosis.worst(1)
    return tuple(f"By itself, {one.label} loses the most: {one.alone:.1f} dB." for one in worst)


@dataclass(frozen=True)
class KeyFigure:
    """A number that a reader looks for first.

    Args:
        label: what the number is, such as "Speed".
        value: the number as text.
        note: the figures that it comes from.
    """

    label: str
    value: str
    note: str


def key_figures(record: Record) -> tuple[KeyFigure, ...]:
    """Speed, size, accuracy and agreement of the last quantized row against float; unknown figures are left out."""
    chosen, baseline = chosen_row(record), float_row(record)
    if chosen is None or baseline is None:
        return ()
    before, after = baseline.deployed_latency.median_ms, chosen.deployed_latency.median_ms
    figures = []
    if not _is_half(record):
        speed = _ratio(before / after, "faster", "slower", "as float")
        figures.append(KeyFigure("Speed", speed, f"{before:.1f} → {after:.1f} ms"))
    size = _ratio(baseline.size_bytes / chosen.size_bytes, "smaller", "larger", "as float")
    figures.append(KeyFigure("Size", size, f"{size_text(baseline.size_bytes)} → {size_text(chosen.size_bytes)}"))
    figures += [KeyFigure(*texts) for texts in (task_figures(record, chosen, baseline) if record.tasks else ())]
    if chosen.deployed_top1 is not None and baseline.deployed_top1 is not None:
        points = 100 * (chosen.deployed_top1 - baseline.deployed_top1)
        note = f"{_percent(baseline.deployed_top1)} → {_percent(chosen.deployed_top1)}"
        figures.append(KeyFigure("Top-1", f"{points:+.1f} points".replace("-", "−"), note))
    if chosen.agreement is not None:
        interval = interval_text(share_of(chosen.agreement, record.images))
        figures.append(KeyFigure("Agreement with float", _percent(chosen.agreement), f"95% interval {interval}"))
    return tuple(figures)


def _is_half(record: Record) -> bool:
    """Whether the latency of the quantized files is meaningless (see `footnotes`)."""
    return record.settings.get("precision") == "fp16"


def _ratio(ratio: float, more: str, less: str, same: str) -> str:
    if max(ratio, 1 / ratio) <= _SAME:
        return same
    return f"{ratio:.1f}× {more}" if ratio > 1 else f"{1 / ratio:.1f}× {less}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


@dataclass(frozen=True)
class Accuracy:
    """One accuracy of one row.

    Args:
        variant: name of the row.
        where: "Keras" or "deployed".
        top1: the share with its interval.
    """

    variant: str
    where: str
    top1: Proportion

    @property
    def text(self) -> str:
        """The share and its interval, as a report writes them."""
        return f"{percent_text(self.top1.value)} ({interval_text(self.top1)})"


def accuracies(record: Record) -> tuple[Accuracy, ...]:
    """Every top-1 accuracy of a record, row for row, Keras before deployed; none where the images have no labels."""
    shares = [
        (row.name, where, share)
        for row in record.rows
        for where, share in (("Keras", row.keras_top1), ("deployed", row.deployed_top1))
    ]
    return tuple(
        Accuracy(name, where, share_of(share, record.images)) for name, where, share in shares if share is not None
    )


def share_of(share: float, images: int) -> Proportion:
    """A share of `images` as a count of them with its interval.

    Example:
        >>> share_of(0.9561, 360).count
        344
    """
    return proportion(round(share * images), images)


def interval_text(share: Proportion) -> str:
    """The two ends of an interval as a report writes them.

    Example:
        >>> interval_text(proportion(90, 100))
        '82.6 to 94.5%'
    """
    return f"{100 * share.low:.1f} to {100 * share.high:.1f}%"

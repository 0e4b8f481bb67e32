"""The tables of an evaluation: of a classifier's files, or of every output of other files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from keras_qat.evaluation import Evaluation, Figure, OutputScores, Proportion, ScoredFile
from keras_qat.report.cell_text import NOTHING, decibel_text, number_text, percent_text
from keras_qat.types import TaskKind

_NO_LABELS = percent_text(None)

_EVALUATION_COLUMNS: tuple[tuple[str, Callable[[ScoredFile, Evaluation], str]], ...] = (
    ("Engine", lambda file, _: f"{file.engine} ({file.device})"),
    ("Images", lambda _, evaluation: str(evaluation.images)),
    ("Top-1", lambda file, _: percent_text(file.top1.value if file.top1 else None)),
    ("95% interval", lambda file, _: _NO_LABELS if file.top1 is None else _interval(file.top1)),
    ("Top-k", lambda file, _: percent_text(file.top_k.value if file.top_k else None)),
    ("Images/s", lambda file, _: f"{file.images_per_second:.1f}"),
)


def evaluation_table(evaluation: Evaluation) -> Table:
    """The table of an evaluation for the terminal, a row for each file, or for each of its figures, with footnotes."""
    if evaluation.files[0].outputs:
        return _task_table(evaluation)
    notes = Text("\n".join(evaluation_notes(evaluation)))
    rows = [[cell(file, evaluation) for _, cell in _EVALUATION_COLUMNS] for file in evaluation.files]
    labelled = all(file.top1 is not None for file in evaluation.files)
    shown = [i for i in range(len(_EVALUATION_COLUMNS)) if any(row[i] != _NO_LABELS for row in rows)]
    title = f"{'Accuracy' if labelled else 'Agreement'} on {evaluation.data}"
    table = Table(title=Text(title), caption=notes, caption_justify="left")
    table.add_column("File", overflow="fold")
    for name in (_EVALUATION_COLUMNS[i][0] for i in shown):
        heading = name.replace("-k", f"-{evaluation.k}")
        table.add_column(heading, justify="left" if name == "Engine" else "right", overflow="fold")
    for file, row in zip(evaluation.files, rows, strict=True):
        table.add_row(Text(file.name), *(Text(row[i]) for i in shown))
    return table


def evaluation_notes(evaluation: Evaluation) -> tuple[str, ...]:
    """What a reader must know of an evaluation; for two files, how they compare."""
    left_out = (f"{evaluation.skipped} more images were broken and were left out.",) if evaluation.skipped else ()
    if evaluation.files[0].outputs:
        return (*_task_notes(evaluation), *left_out)
    batches = " and ".join(dict.fromkeys(str(file.batch_size) for file in evaluation.files))
    explanation = f"95% interval: Wilson's. Images/s: in the engine alone, median of the batches of {batches}."
    return (explanation, *left_out, *_compared(evaluation))


def _compared(evaluation: Evaluation) -> Sequence[str]:
    """Whether two files give the same classes, and whether one is better."""
    comparison, agreement = evaluation.comparison, evaluation.agreement
    if agreement is None:
        return ()
    same_class = f"Same class on {percent_text(agreement.value)} of the images ({_interval(agreement)})."
    if comparison is None:
        return (f"{same_class} They have no labels, so nobody knows which is right.",)
    first, second = (file.name for file in evaluation.files)
    better, worse = (first, second) if comparison.difference > 0 else (second, first)
    verdict = f"{better} is better than {worse}" if comparison.shown else "no difference shown"
    agreed = (
        f"{same_class} Only {first} is right on {comparison.only_first}, only {second} on {comparison.only_second}; "
        f"both on {comparison.both_right}, neither on {comparison.both_wrong}."
    )
    difference = (
        f"Top-1 of {first} less that of {second}: {100 * comparison.difference:+.2f} points "
        f"({100 * comparison.low:+.2f} to {100 * comparison.high:+.2f}, Agresti and Min). "
        f"Exact McNemar test: p = {comparison.p_value:.3g}: {verdict}."
    )
    return agreed, difference


def _interval(share: Proportion) -> str:
    return f"{percent_text(share.low)} to {percent_text(share.high)}"


@dataclass(frozen=True)
class Shown:
    """A figure as a table shows it.

    Args:
        figure: its name.
        title: what it is called; `{other}` stands for the other file.
        text: its value as text.
    """

    figure: str
    title: str
    text: Callable[[float | None], str]


def _cosine_text(number: float | None) -> str:
    return NOTHING if number is None else f"{number:.5f}"


_SHOWN: Mapping[TaskKind, tuple[Shown, ...]] = {
    "classification": (
        Shown("top1", "top-1", percent_text),
        Shown("top5", "top-5", percent_text),
        Shown("agreement", "same class as {other}", percent_text),
    ),
    "segmentation": (
        Shown("mean_iou", "mean IoU", percent_text),
        Shown("image_iou", "mean IoU of each sample", percent_text),
        Shown("pixel_accuracy", "pixel accuracy", percent_text),
        Shown("agreement", "same class as {other}", percent_text),
        Shown("model_iou", "mean IoU with {other}", percent_text),
    ),
    "regression": (
        Shown("mae", "MAE", number_text),
        Shown("rmse", "RMSE", number_text),
        Shown("sqnr", "SQNR against {other}", decibel_text),
        Shown("mean_error", "mean error against {other}", number_text),
        Shown("largest_error", "largest error against {other}", number_text),
        Shown("cosine", "cosine with {other}", _cosine_text),
    ),
}
"""The figures of each kind of task: those against labels, then those of two files."""


def _task_table(evaluation: Evaluation) -> Table:
    """A row for each figure of each output of each file."""
    several = len(evaluation.files[0].outputs) > 1
    labelled = any(scores.differences or _OF_LABELS & set(scores.figures) for scores in evaluation.files[-1].outputs)
    table = Table(
        title=Text(f"{'Accuracy' if labelled else 'Agreement'} on {evaluation.data}, {evaluation.images} samples"),
        caption=Text("\n".join(evaluation_notes(evaluation))),
        caption_justify="left",
    )
    for name in ("File", *(("Output",) if several else ()), "Figure", "Value", "95% interval"):
        table.add_column(name, justify="right" if name in {"Value", "95% interval"} else "left", overflow="fold")
    other = evaluation.files[-1].name
    for file in evaluation.files:
        before: tuple[str, ...] = ()
        for scores in file.outputs:
            for shown in _SHOWN[scores.kind]:
                if shown.figure not in scores.figures:
                    continue
                figure = scores.figures[shown.figure]
                names = (file.name, *((scores.output,) if several else ()))
                cells = (shown.title.format(other=other), shown.text(figure.value), _ends(figure, shown.text))
                # A name stands once, at its first row.
                table.add_row(*map(Text, (*(names if not before else _new(names, before)), *cells)))
                before = names
        table.add_section()
    return table


def _new(names: Sequence[str], before: Sequence[str]) -> tuple[str, ...]:
    """The names that differ from those of the row before, and nothing in the place of others."""
    return tuple("" if name == old else name for name, old in zip(names, before, strict=True))


_OF_LABELS = frozenset({"top1", "mean_iou", "mae"})


def _ends(figure: Figure, text: Callable[[float | None], str]) -> str:
    return NOTHING if figure.low is None or figure.high is None else f"{text(figure.low)} to {text(figure.high)}"


def _task_notes(evaluation: Evaluation) -> tuple[str, ...]:
    """Where each file ran and how fast, what the intervals are, and whether one of two files is better."""
    speeds = (
        f"{file.name}: {file.engine} ({file.device}), {file.images_per_second:.1f} samples/s, batch {file.batch_size}."
        for file in evaluation.files
    )
    compared = (note for scores in evaluation.files[0].outputs for note in _difference_notes(scores, evaluation.files))
    return (*speeds, "95% interval: of the mean over the samples (t), of a share Wilson's.", *compared)


_LESS_IS_BETTER = frozenset({"mae"})


def _difference_notes(scores: OutputScores, files: Sequence[ScoredFile]) -> Iterator[str]:
    """The difference of two files, sample by sample, and whether it is shown."""
    texts = {shown.figure: shown for shown in _SHOWN[scores.kind]}
    first, second = files[0].name, files[-1].name
    for name, figure in scores.differences.items():
        if figure.value is None or figure.low is None or figure.high is None:
            continue
        shown = texts[name]
        better, worse = (first, second) if (figure.value > 0) != (name in _LESS_IS_BETTER) else (second, first)
        equal = figure.low <= 0 <= figure.high
        said = "no difference shown" if equal else f"{better} is better than {worse}"
        of = f"{scores.output}: " if len(files[0].outputs) > 1 else ""
        value, low, high = map(_DIFFERENCES[shown.text], (figure.value, figure.low, figure.high))
        unit = " points" if shown.text is percent_text else ""
        yield (
            f"{of}{shown.title} of {first} less that of {second}, sample by sample: {value}{unit} ({low} to {high}): "
            f"{said}."
        )


_DIFFERENCES: Mapping[Callable[[float | None], str], Callable[[float], str]] = {
    percent_text: lambda share: f"{100 * share:+.2f}",
    number_text: lambda number: f"{number:+.3g}",
}
"""A difference as text, by the text of the figure itself: points of shares, or numbers."""

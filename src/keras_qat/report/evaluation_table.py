"""An evaluation on the terminal: a row for each file, and in words whether two differ. So one image's classes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from keras_qat.evaluation import Classification, Evaluation, Proportion, ScoredFile

_NO_LABELS = "–"

_COLUMNS: tuple[tuple[str, Callable[[ScoredFile, Evaluation], str]], ...] = (
    ("Engine", lambda file, _: f"{file.engine} ({file.device})"),
    ("Images", lambda _, evaluation: str(evaluation.images)),
    ("Top-1", lambda file, _: _NO_LABELS if file.top1 is None else _percent(file.top1.value)),
    ("95% interval", lambda file, _: _NO_LABELS if file.top1 is None else _interval(file.top1)),
    ("Top-k", lambda file, _: _NO_LABELS if file.top_k is None else _percent(file.top_k.value)),
    ("Images/s", lambda file, _: f"{file.images_per_second:.1f}"),
)


def evaluation_table(evaluation: Evaluation) -> Table:
    """The table for the terminal, with its footnotes."""
    notes = Text("\n".join(evaluation_notes(evaluation)))
    rows = [[cell(file, evaluation) for _, cell in _COLUMNS] for file in evaluation.files]
    labelled = all(file.top1 is not None for file in evaluation.files)
    shown = [i for i in range(len(_COLUMNS)) if any(row[i] != _NO_LABELS for row in rows)]
    title = f"{'Accuracy' if labelled else 'Agreement'} on {evaluation.data}"
    table = Table(title=title, caption=notes, caption_justify="left")
    table.add_column("File", overflow="fold")
    for name in (_COLUMNS[i][0] for i in shown):
        table.add_column(name.replace("-k", f"-{evaluation.k}"), justify="left" if name == "Engine" else "right")
    for file, row in zip(evaluation.files, rows, strict=True):
        table.add_row(Text(file.name), *(Text(row[i]) for i in shown))
    return table


def classification_table(found: Classification) -> Table:
    """The best classes of one image for the terminal."""
    # A title is no wider than its table, so names and no paths.
    where = Text(f"{Path(found.file).name} in {found.engine} ({found.device})")
    table = Table(title=Text(Path(found.image).name), caption=where, min_width=len(where))
    for name in ("Class", "Number", "Score"):
        table.add_column(name, justify="left" if name == "Class" else "right")
    for ranked in found.classes:
        table.add_row(Text(ranked.name), str(ranked.index), f"{ranked.score:.4g}")
    return table


def evaluation_notes(evaluation: Evaluation) -> tuple[str, ...]:
    """What a reader must know to read the table right; of two files, how they compare."""
    batches = " and ".join(dict.fromkeys(str(file.batch_size) for file in evaluation.files))
    explained = f"95% interval: Wilson's. Images/s: in the engine alone, median of the batches of {batches}."
    left_out = (f"{evaluation.skipped} more images were broken and were left out.",)
    return (explained, *(left_out if evaluation.skipped else ()), *_compared(evaluation))


def _compared(evaluation: Evaluation) -> Sequence[str]:
    found, same = evaluation.comparison, evaluation.agreement
    if same is None:
        return ()
    alike = f"Same class on {_percent(same.value)} of the images ({_interval(same)})."
    if found is None:
        return (f"{alike} They have no labels, so nobody knows which is right.",)
    first, second = (file.name for file in evaluation.files)
    better, worse = (first, second) if found.difference > 0 else (second, first)
    verdict = f"{better} is better than {worse}" if found.shown else "no difference shown"
    agreement = (
        f"{alike} Only {first} is right on {found.only_first}, only {second} on {found.only_second}; "
        f"both on {found.both_right}, neither on {found.both_wrong}."
    )
    difference = (
        f"Top-1 of {first} less that of {second}: {100 * found.difference:+.2f} points "
        f"({100 * found.low:+.2f} to {100 * found.high:+.2f}, Agresti and Min). "
        f"Exact McNemar test: p = {found.p_value:.3g}: {verdict}."
    )
    return agreement, difference


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _interval(share: Proportion) -> str:
    return f"{_percent(share.low)} to {_percent(share.high)}"

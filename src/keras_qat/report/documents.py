"""Reports of runs: the page, or Markdown for a pull request with the table first and the details folded away."""

from collections.abc import Sequence
from pathlib import Path

from keras_qat.files import atomic_path
from keras_qat.report.cell_text import percent_text
from keras_qat.report.diagnosis_text import describe_diagnosis
from keras_qat.report.in_words import accuracies, interval_text, verdict
from keras_qat.report.page.render import render
from keras_qat.report.record import Record, RunFiles, chosen_row, environment_facts, setting_facts
from keras_qat.report.tables import markdown
from keras_qat.report.task_words import Intervals, task_intervals
from keras_qat.text import markdown_cell, markdown_text

_WORST = 5


def pull_request(files: RunFiles) -> str:
    """A run as Markdown: verdict, results table, intervals; folded: the worst layers, settings and environment.

    Args:
        files: of the run.

    Returns:
        Markdown as GitHub and GitLab read it.
    """
    record = files.record
    chosen = chosen_row(record)
    diagnosed = None if chosen is None else files.diagnoses.get(chosen.name)
    sentences = verdict(record, None if diagnosed is None else diagnosed.diagnosis)
    heading, _, rest = markdown(record).partition("\n")
    first, others = markdown_text(sentences[0]), markdown_text(" ".join(sentences[1:]))
    parts = [heading, f"**{first}** {others}".strip(), rest.strip()]
    parts += _intervals(record)
    if diagnosed is not None and chosen is not None:
        worst = describe_diagnosis(diagnosed.diagnosis, worst=_WORST).strip()
        parts.append(_folded(f"Worst layers of {chosen.name}", worst))
    parts.append(_folded("Settings", _two_columns(setting_facts(record.settings))))
    parts.append(_folded("Environment", _two_columns(environment_facts(record.environment))))
    return "\n\n".join(parts) + "\n"


def _intervals(record: Record) -> list[str]:
    if record.tasks:
        return [_task_intervals(one) for one in task_intervals(record)]
    lines = [
        f"| {markdown_cell(row.variant)} | {row.where} | {percent_text(row.top1.value)} | {interval_text(row.top1)} |"
        for row in accuracies(record)
    ]
    header = ["| Top-1 | in | share | 95% interval |", "| --- | --- | --- | --- |"]
    return ["\n".join([*header, *lines])] if lines else []


def _task_intervals(intervals: Intervals) -> str:
    lines = [f"| {markdown_cell(row.variant)} | {row.where} | {row.text} |" for row in intervals.rows]
    header = [f"| {markdown_cell(intervals.title)} | in |  |", "| --- | --- | --- |"]
    return "\n".join([*header, *lines])


def _two_columns(pairs: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {markdown_cell(key)} | {markdown_cell(value)} |" for key, value in pairs]
    return "\n".join(["|  |  |", "| --- | --- |", *lines])


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{markdown_text(summary)}</summary>\n\n{body}\n\n</details>"


def write_page(runs: Sequence[RunFiles], path: Path) -> Path:
    """Write the page of one run, or of several.

    Args:
        runs: at least one.
        path: the file.

    Returns:
        `path`.

    Raises:
        StorageError: If `path` can't be written.
    """
    # Byte for byte: the page allows its own script by a digest. Control characters do nothing in HTML.
    with atomic_path(path) as temporary:
        temporary.write_text(render(runs), encoding="utf-8", errors="backslashreplace")
    return path


def markdown_report(runs: Sequence[RunFiles]) -> str:
    """One run or several as Markdown for a pull request."""
    return "\n".join(map(pull_request, runs))

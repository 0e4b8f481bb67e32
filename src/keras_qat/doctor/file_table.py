"""An examination on the terminal: facts, a table of findings, the verdict."""

from rich.table import Table
from rich.text import Text

from keras_qat.doctor.examination import Examination
from keras_qat.doctor.finding import Finding, Severity, Symptom
from keras_qat.doctor.summary import Summary
from keras_qat.sizes import size_text

_MILLION = 1e6

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


def file_table(found: Examination) -> Table:
    """All about one file, from top to bottom."""
    whole = Table.grid()
    whole.add_column(overflow="fold")
    whole.add_row(Text(str(found.path), style="bold"))
    whole.add_row(facts_grid(_facts(found.summary)))
    if found.findings:
        whole.add_row(_findings_table(found))
    whole.add_row(Text(found.verdict, style="green" if found.healthy else "yellow"))
    whole.add_row("")
    return whole


def facts_grid(facts: dict[str, str]) -> Table:
    """Names and values side by side."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(name, Text(value))
    return grid


def explained(symptom: Symptom | Finding, place: str = "") -> Text:
    """What, where, what it costs, and what to do: one line each."""
    text = Text(symptom.problem[:1].upper() + symptom.problem[1:])
    if place:
        text.append(f"\nWhere: {place}")
    text.append(f"\nCosts: {symptom.cost}")
    text.append(f"\nDo: {symptom.remedy}")
    return text


def _findings_table(found: Examination) -> Table:
    table = Table(show_lines=True)
    table.add_column("Finding", overflow="fold", max_width=20)
    table.add_column("Hurts", overflow="fold", min_width=8)
    table.add_column("What it is, what it costs, what to do", overflow="fold", ratio=1)
    for finding in found.findings:
        name = Text(str(finding.severity), style=STYLES[finding.severity]).append(f"\n{finding.check}", style="default")
        engines = "all" if finding.engines == found.targets and len(found.targets) > 1 else "\n".join(finding.engines)
        table.add_row(name, engines, explained(finding, f"{finding.place} ({finding.count})" if finding.count else ""))
    return table


def _count(number: int) -> str:
    return f"{number / _MILLION:.2f} million" if number >= _MILLION / 10 else f"{number:,}"


def _facts(summary: Summary) -> dict[str, str]:
    opset = "none" if summary.opset is None else str(summary.opset)
    return {
        "producer": summary.producer + (f", for {summary.target}" if summary.target else ""),
        "opset": f"{opset}, IR version {summary.ir_version}",
        "inputs": "; ".join(summary.inputs) or "none",
        "outputs": "; ".join(summary.outputs) or "none",
        "size": f"{size_text(summary.size_bytes)}, {_count(summary.parameters)} stored numbers",
        "in int8": f"{summary.convolutions} convolutions, {summary.dense} dense layers; {summary.pairs} Q/DQ pairs",
    }

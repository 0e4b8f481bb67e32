"""The terminal's tables: of an examined file, and of this machine."""

from rich.table import Table
from rich.text import Text

from keras_qat.doctor import findings, machine_advice
from keras_qat.doctor.examination import Examination, Summary
from keras_qat.doctor.machine import EngineState, Machine
from keras_qat.machine import EXTRAS
from keras_qat.text import size_text

_MILLION, _GIGABYTE = 1e6, 1e9

_SEVERITIES = {findings.Severity.ERROR: "bold red", findings.Severity.WARNING: "yellow", findings.Severity.NOTE: "cyan"}
_STATES = {"ready": "green", "builds only": "yellow", "can't run here": "yellow", "not installed": "dim"}
_VNNI = {True: "with VNNI", False: "without VNNI", None: "VNNI unknown"}

_EXPLANATION = "What it is, what it costs, what to do"


def file_table(examination: Examination) -> Table:
    """One file: its facts, its findings, the verdict."""
    whole = _column()
    whole.add_row(Text(str(examination.path), style="bold"))
    whole.add_row(_facts_grid(_file_facts(examination.summary)))
    if examination.findings:
        whole.add_row(_findings_table(examination))
    whole.add_row(Text(examination.verdict, style="green" if examination.healthy else "yellow"))
    whole.add_row("")
    return whole


def machine_table(machine: Machine) -> Table:
    """One machine: its facts, its engines, missing extras, advice."""
    whole = _column()
    whole.add_row(_facts_grid(_machine_facts(machine)))
    whole.add_row(_engines_table(machine.engines))
    missing = [extra for extra in EXTRAS if extra.name in machine.missing_extras]
    if missing:
        whole.add_row(Text("Optional, not installed:"))
        whole.add_row(_facts_grid({f"  {extra.purpose}": extra.install for extra in missing}))
    symptoms = [(name, symptom) for name, several in machine_advice.advise(machine).items() for symptom in several]
    if symptoms:
        whole.add_row(_advice_table(symptoms))
    else:
        whole.add_row(Text("healthy: nothing to fix on this machine", style="green"))
    return whole


def _column() -> Table:
    """A table that stacks other tables."""
    whole = Table.grid()
    whole.add_column(overflow="fold")
    return whole


def _facts_grid(facts: dict[str, str]) -> Table:
    """Names and values side by side."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(name, Text(value))
    return grid


def _findings_table(examination: Examination) -> Table:
    table = Table(show_lines=True)
    table.add_column("Finding", overflow="fold", max_width=20)
    table.add_column("Hurts", overflow="fold", min_width=8)
    table.add_column(_EXPLANATION, overflow="fold", ratio=1)
    for finding in examination.findings:
        all_of_several = finding.engines == examination.targets and len(examination.targets) > 1
        engines = "all" if all_of_several else "\n".join(finding.engines)
        place = f"{finding.place} ({finding.count})" if finding.count else ""
        table.add_row(_heading(finding.severity, finding.check), engines, _explained(finding, place))
    return table


def _advice_table(symptoms: list[tuple[str, findings.Symptom]]) -> Table:
    table = Table(show_lines=True)
    table.add_column("Finding", overflow="fold", max_width=20)
    table.add_column(_EXPLANATION, overflow="fold", ratio=1)
    for name, symptom in symptoms:
        table.add_row(_heading(symptom.severity, name), _explained(symptom))
    return table


def _heading(severity: findings.Severity, check: str) -> Text:
    return Text(str(severity), style=_SEVERITIES[severity]).append(f"\n{check}", style="default")


def _explained(symptom: findings.Symptom | findings.Finding, place: str = "") -> Text:
    """What it is, where, what it costs, and what to do: one line each."""
    text = Text(symptom.problem[:1].upper() + symptom.problem[1:])
    if place:
        text.append(f"\nWhere: {place}")
    text.append(f"\nCosts: {symptom.cost}")
    text.append(f"\nDo: {symptom.remedy}")
    return text


def _engines_table(engines: tuple[EngineState, ...]) -> Table:
    table = Table()
    table.add_column("--engine", no_wrap=True)
    table.add_column("Version", no_wrap=True)
    table.add_column("Opens", overflow="fold")
    table.add_column("Here", overflow="fold")
    for engine in engines:
        here = Text(engine.state, style=_STATES[engine.state])
        if engine.remedy:
            here.append(f": {engine.remedy}", style="default")
        table.add_row(engine.name, engine.version or "–", engine.opens, here)
    return table


def _file_facts(summary: Summary) -> dict[str, str]:
    opset = "none" if summary.opset is None else str(summary.opset)
    return {
        "producer": summary.producer + (f", for {summary.target}" if summary.target else ""),
        "opset": f"{opset}, IR version {summary.ir_version}",
        "inputs": "; ".join(summary.inputs) or "none",
        "outputs": "; ".join(summary.outputs) or "none",
        "size": f"{size_text(summary.size_bytes)}, {_count(summary.parameters)} stored numbers",
        "in int8": f"{summary.convolutions} convolutions, {summary.dense} dense layers; {summary.pairs} Q/DQ pairs",
    }


def _machine_facts(machine: Machine) -> dict[str, str]:
    facts = {
        "CPU": f"{machine.cpu.name}, {machine.architecture}, {_VNNI[machine.cpu.vnni]}",
        "cores": f"{machine.usable_cores} of {machine.cores}",
        "memory": f"{_gigabytes(machine.available_bytes)} available of {_gigabytes(machine.memory_bytes)}",
    }
    for number, gpu in enumerate(machine.gpus):
        facts[f"GPU {number}"] = (
            f"{gpu.name}, {gpu.memory_mb} MiB, compute capability {gpu.compute_capability or 'unknown'}, "
            f"driver {gpu.driver}"
        )
    if not machine.gpus:
        facts["GPU"] = "no NVIDIA GPU"
    facts["system"] = f"{machine.system}, Python {machine.python}"
    facts["keras-qat"] = f"{machine.keras_qat}, Keras on {machine.keras_backend}"
    facts["packages"] = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    for disk in machine.disks:
        facts[disk.purpose] = f"{disk.path}, {_gigabytes(disk.free_bytes)} free"
    return facts


def _count(number: int) -> str:
    return f"{number / _MILLION:.2f} million" if number >= _MILLION / 10 else f"{number:,}"


def _gigabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / _GIGABYTE:.1f} GB"

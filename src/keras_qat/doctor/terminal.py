"""An examination on the terminal: facts, a table of findings, the verdict.

A machine on the terminal: facts, engines, advice.
"""

from rich.table import Table
from rich.text import Text

from keras_qat.doctor.examination import Examination, Summary
from keras_qat.doctor.findings import Finding, Severity, Symptom
from keras_qat.doctor.machine import EngineState, Machine
from keras_qat.doctor.machine_advice import advise
from keras_qat.machine import EXTRAS
from keras_qat.text import size_text

_MILLION = 1e6

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


def file_table(found: Examination) -> Table:
    """All about one file, from top to bottom."""
    whole = Table.grid()
    whole.add_column(overflow="fold")
    whole.add_row(Text(str(found.path), style="bold"))
    whole.add_row(facts_grid(_file_facts(found.summary)))
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


_GIGABYTE = 1e9
_VNNI = {True: "with VNNI", False: "without VNNI", None: "VNNI unknown"}
_STATES = {"ready": "green", "builds only": "yellow", "can't run here": "yellow", "not installed": "dim"}


def machine_table(machine: Machine) -> Table:
    """All about one machine, from top to bottom."""
    whole = Table.grid()
    whole.add_column(overflow="fold")
    whole.add_row(facts_grid(_machine_facts(machine)))
    whole.add_row(_engines_table(machine.engines))
    missing = [extra for extra in EXTRAS if extra.name in machine.missing_extras]
    if missing:
        whole.add_row(Text("Optional, not installed:"))
        whole.add_row(facts_grid({f"  {extra.purpose}": extra.install for extra in missing}))
    symptoms = [(name, one) for name, several in advise(machine).items() for one in several]
    if symptoms:
        whole.add_row(_advice_table(symptoms))
    else:
        whole.add_row(Text("healthy: nothing to mend on this machine", style="green"))
    return whole


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
        facts["GPU"] = "none that nvidia-smi finds"
    facts["system"] = f"{machine.system}, Python {machine.python}"
    facts["keras-qat"] = f"{machine.keras_qat}, Keras on {machine.keras_backend}"
    facts["packages"] = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    for disk in machine.disks:
        facts[disk.purpose] = f"{disk.path}, {_gigabytes(disk.free_bytes)} free"
    return facts


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


def _advice_table(symptoms: list[tuple[str, Symptom]]) -> Table:
    table = Table(show_lines=True)
    table.add_column("Finding", overflow="fold", max_width=20)
    table.add_column("What it is, what it costs, what to do", overflow="fold", ratio=1)
    for name, symptom in symptoms:
        table.add_row(
            Text(str(symptom.severity), style=STYLES[symptom.severity]).append(f"\n{name}"), explained(symptom)
        )
    return table


def _gigabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / _GIGABYTE:.1f} GB"

"""A diagnosis as Markdown, and the JSON file that a run or `keras-qat diagnose --output` wrote."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

from keras_qat import evaluation, files, placement
from keras_qat.text import markdown_cell, markdown_text

HEADER = ("", "alone", "cumulative", "saturated", "range")
"""Of a table of tensors and kernels."""


def describe_diagnosis(diagnosis: evaluation.Diagnosis, *, worst: int = 10) -> str:
    """The worst tensors and kernels as a Markdown table, the outputs, and what to try.

    Args:
        diagnosis: from `diagnose`.
        worst: the number of tensors and kernels to show.

    Returns:
        Markdown.

    Example:
        >>> from keras_qat.types import QuantSpec
        >>> conv = evaluation.KernelDiagnosis("conv", QuantSpec(), alone=44.0, weights=45.0)
        >>> print(describe_diagnosis(evaluation.Diagnosis((), (conv,), (), images=64)))
        The worst 1 of 0 tensors and 1 kernels, on 64 images:
        <BLANKLINE>
        |  | alone | cumulative | saturated | range |
        | --- | --- | --- | --- | --- |
        | kernel of conv | 44.0 dB | – | – | – |
        <BLANKLINE>
        Nothing stands out.
        <BLANKLINE>
    """
    shown = diagnosis.worst(worst)
    outputs = [(f"output {output.name}", "–", _db(output.cumulative), "–", "–") for output in diagnosis.outputs]
    rows = [HEADER, ("---",) * len(HEADER), *map(_row, shown), *outputs]
    advices = evaluation.advise(diagnosis, worst=worst)
    counts = f"{len(diagnosis.tensors)} tensors and {len(diagnosis.kernels)} kernels"
    lines = [
        f"The worst {len(shown)} of {counts}, on {diagnosis.images} images:",
        "",
        *(f"| {' | '.join(map(markdown_cell, row))} |" for row in rows),
        "",
        *(["What to try:", "", *_advice_list(advices)] if advices else ["Nothing stands out."]),
    ]
    return "\n".join(lines) + "\n"


@singledispatch
def _row(layer: Any) -> tuple[str, ...]:
    """The line of the table for a tensor or kernel."""
    raise NotImplementedError(type(layer))


@_row.register
def _tensor_row(tensor: evaluation.TensorDiagnosis) -> tuple[str, ...]:
    return (
        tensor.label,
        _db(tensor.alone),
        _db(tensor.cumulative),
        evaluation.percent(tensor.saturated),
        f"{tensor.amax:.4g}",
    )


@_row.register
def _kernel_row(kernel: evaluation.KernelDiagnosis) -> tuple[str, ...]:
    return kernel.label, _db(kernel.alone), "–", "–", "–"


def _advice_list(advices: Sequence[evaluation.Advice]) -> list[str]:
    lines = []
    for remedy, alike in grouped_advice(advices):
        lines.append(f"- {remedy}")
        for advice in alike:
            rule = f" In float: `{rule_text(advice)}`" if advice.rule else ""
            finding = markdown_text(f"{advice.about or 'The network'}: {advice.finding}")
            lines.append(f"  - {finding}{rule}")
    return lines


def grouped_advice(advices: Sequence[evaluation.Advice]) -> list[tuple[str, list[evaluation.Advice]]]:
    """Each remedy once, with all advice that recommends it."""
    remedies = dict.fromkeys(advice.remedy for advice in advices)
    return [(remedy, [advice for advice in advices if advice.remedy == remedy]) for remedy in remedies]


def rule_text(advice: evaluation.Advice) -> str:
    """The override that keeps the tensor or kernel in float, as JSON; empty where there is none."""
    return "" if advice.rule is None else json.dumps(placement.rule_to_json(advice.rule))


def _db(value: float) -> str:
    return f"{value:.1f} dB"


@dataclass(frozen=True)
class DiagnosisFile:
    """A diagnosis as `keras-qat diagnose --output` or a run wrote it.

    Args:
        diagnosis: the figures.
        advice: what to try, as of the version that wrote the file.
    """

    diagnosis: evaluation.Diagnosis
    advice: tuple[evaluation.Advice, ...]


@dataclass(frozen=True)
class _Content(evaluation.Diagnosis):
    """All that the JSON file holds, side by side."""

    advice: tuple[evaluation.Advice, ...]


def load_diagnosis(path: Path) -> DiagnosisFile:
    """Read the diagnosis in a file.

    Raises:
        StorageError: If `path` can't be read.
        UserError: If the file isn't JSON, or doesn't hold a diagnosis.
    """
    content = files.from_json_value(
        _Content,
        files.read_json(path),
        problem=f"{path} doesn't hold a diagnosis",
        remedy="Write it again with `keras-qat diagnose RUN --output FILE`.",
        hooks={placement.Rule: placement.rule_from_json},
    )
    diagnosis = evaluation.Diagnosis(content.tensors, content.kernels, content.outputs, content.images)
    return DiagnosisFile(diagnosis, content.advice)

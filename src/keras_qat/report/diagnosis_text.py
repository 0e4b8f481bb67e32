"""A diagnosis that a human can read: the worst tensors and kernels as a Markdown table, and what to try.

A diagnosis, read back from the JSON file that a run or `keras-qat diagnose --output` wrote.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

from keras_qat.evaluation import Advice, Diagnosis, KernelDiagnosis, TensorDiagnosis, advise, percent
from keras_qat.files import from_json_value, read_json
from keras_qat.placement import Rule, rule_from_json, rule_to_json

_HEADER = ("", "alone", "cumulative", "saturated", "range")


def describe_diagnosis(diagnosis: Diagnosis, *, worst: int = 10) -> str:
    """The worst tensors and kernels, the outputs, and advice about what is shown.

    Args:
        diagnosis: from `diagnose`.
        worst: how many tensors and kernels to show.

    Returns:
        Markdown.

    Example:
        >>> from keras_qat.types import QuantSpec
        >>> conv = KernelDiagnosis("conv", QuantSpec(), alone=44.0, weights=45.0)
        >>> print(describe_diagnosis(Diagnosis((), (conv,), (), images=64)))
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
    rows = [_HEADER, ("---",) * len(_HEADER), *map(_row, shown), *outputs]
    advices = advise(diagnosis, worst=worst)
    counts = f"{len(diagnosis.tensors)} tensors and {len(diagnosis.kernels)} kernels"
    lines = [
        f"The worst {len(shown)} of {counts}, on {diagnosis.images} images:",
        "",
        *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows),
        "",
        *(["What to try:", "", *_by_remedy(advices)] if advices else ["Nothing stands out."]),
    ]
    return "\n".join(lines) + "\n"


@singledispatch
def _row(found: Any) -> tuple[str, ...]:
    """One line of the table."""
    raise NotImplementedError(type(found))


@_row.register
def _tensor_row(found: TensorDiagnosis) -> tuple[str, ...]:
    return found.label, _db(found.alone), _db(found.cumulative), percent(found.saturated), f"{found.amax:.4g}"


@_row.register
def _kernel_row(found: KernelDiagnosis) -> tuple[str, ...]:
    return found.label, _db(found.alone), "–", "–", "–"


def _by_remedy(advices: Sequence[Advice]) -> list[str]:
    """A list of remedies, under each what it is for, with the rule that keeps it in float."""
    lines = []
    for remedy in dict.fromkeys(advice.remedy for advice in advices):
        lines.append(f"- {remedy}")
        for advice in (advice for advice in advices if advice.remedy == remedy):
            rule = "" if advice.rule is None else f" In float: `{json.dumps(rule_to_json(advice.rule))}`"
            lines.append(f"  - {advice.about or 'The network'}: {advice.finding}{rule}")
    return lines


def _db(value: float) -> str:
    return f"{value:.1f} dB"


@dataclass(frozen=True)
class DiagnosisFile:
    """A diagnosis as `keras-qat diagnose --output` or a run wrote it.

    Args:
        diagnosis: the figures.
        advice: what to try, as of the version that wrote the file.
    """

    diagnosis: Diagnosis
    advice: tuple[Advice, ...]


@dataclass(frozen=True)
class _Content(Diagnosis):
    """All that the JSON file holds, side by side."""

    advice: tuple[Advice, ...]


def load_diagnosis(path: Path) -> DiagnosisFile:
    """Read the diagnosis in a file.

    Raises:
        StorageError: If `path` can't be read.
        UserError: If the file isn't JSON, or doesn't hold a diagnosis.
    """
    content = from_json_value(
        _Content,
        read_json(path),
        problem=f"{path} doesn't hold a diagnosis",
        remedy="Write it again with `keras-qat diagnose RUN --output FILE`.",
        hooks={Rule: rule_from_json},
    )
    diagnosis = Diagnosis(content.tensors, content.kernels, content.outputs, content.images)
    return DiagnosisFile(diagnosis, content.advice)

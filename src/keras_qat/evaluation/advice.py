"""What to try: from the figures of a diagnosis to things a human can do.

Tensors, kernels and the network have a table of symptoms each; the first that shows gives the advice. A tensor is bad
when it has lost more than three of its bits: with 8 bits, under 30 dB. Numbers of a bell shape lose one to two at the
best range, so what is worse has a cause of its own.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from keras_qat.evaluation.diagnosis import DB_PER_BIT, Diagnosis, KernelDiagnosis, TensorDiagnosis, percent
from keras_qat.placement import Rule, rule_to_json

LOST_BITS = 3.0

_MOSTLY = 0.5
"""The share of the error that makes clipping its cause."""

_HEAVY = 0.001
"""The share of numbers that saturate which no good range clips; the best for bell shapes clips a tenth of that."""

_FAR_BELOW_DB = 6.0
"""Cumulative under alone by this much in the median, a bit: the errors add up along the network."""

_LOW_OUTPUT_DB = 30.0


@dataclass(frozen=True)
class Advice:
    """What was found and what to do about it.

    Args:
        about: label of the tensor or kernel; `None` for the network as a whole.
        finding: what the figures say.
        remedy: what to try, the cheapest first.
        rule: keeps the tensor or kernel in float: the last resort, as an override (docs/overrides.md).
    """

    about: str | None
    finding: str
    remedy: str
    rule: Rule | None = None

    def to_dict(self) -> dict[str, Any]:
        """The advice as JSON can hold it, the rule as a file of overrides spells it."""
        rule = None if self.rule is None else rule_to_json(self.rule)
        return {"about": self.about, "finding": self.finding, "remedy": self.remedy, "rule": rule}


@dataclass(frozen=True)
class Symptom:
    """A line of a table: when it shows, and what to say then.

    Args:
        shows: whether a figure has it.
        finding: a format string over `it`, the figures, and `percent`, the share that saturates.
        remedy: what to try.
        rule: what keeps it in float; `None` where that is no remedy.
    """

    shows: Callable[[Any], bool]
    finding: str
    remedy: str
    rule: Callable[[Any], Rule] | None = None

    def advise(self, it: Any, about: str | None) -> Advice:
        """The advice for one set of figures."""
        finding = self.finding.format(it=it, percent=percent(getattr(it, "saturated", 0)))
        return Advice(about, finding, self.remedy, None if self.rule is None else self.rule(it))


def _bad(it: TensorDiagnosis | KernelDiagnosis) -> bool:
    return it.alone < DB_PER_BIT * (it.spec.bits - LOST_BITS)


def _float_tensor(it: TensorDiagnosis) -> Rule:
    return Rule(it.producer, output=False)


def _float_kernel(it: KernelDiagnosis) -> Rule:
    # With float weights the layer computes in float anyway, so rounding its input would gain nothing.
    return Rule(it.name, inputs=False, weights=False)


_TENSOR: tuple[Symptom, ...] = (
    Symptom(
        lambda it: _bad(it) and it.clipping > _MOSTLY and it.saturated > _HEAVY,
        "{it.alone:.1f} dB; the range {it.amax:.4g} is too small: {percent} of the numbers saturate, "
        "{it.clipping:.0%} of the error.",
        "Calibrate with more images (--calibration-images), or with --calibration-method minmax.",
        _float_tensor,
    ),
    Symptom(
        lambda it: _bad(it) and it.clipping > _MOSTLY,
        "{it.alone:.1f} dB; outliers beyond the range {it.amax:.4g}: {percent} of the numbers, {it.clipping:.0%} of "
        "the error.",
        "Calibrate with more images (--calibration-images), which may hold such outliers; if that doesn't help, keep "
        "the tensor in float.",
        _float_tensor,
    ),
    Symptom(
        _bad,
        "{it.alone:.1f} dB; the range {it.amax:.4g} is far larger than most of the numbers; {percent} saturate.",
        "A few outliers set the range. Calibrate with --calibration-method mse, entropy or percentile; if done, "
        "keep the tensor in float.",
        _float_tensor,
    ),
)

_KERNEL: tuple[Symptom, ...] = (
    Symptom(
        lambda it: _bad(it) and it.spec.bits < 8,  # noqa: PLR2004
        "{it.alone:.1f} dB with {it.spec.bits} bits.",
        "The kernel needs more bits. Raise weight_bits, or keep the layer in float.",
        _float_kernel,
    ),
    Symptom(
        _bad,
        "{it.alone:.1f} dB.",
        "A few large weights in an output channel leave few steps for the others. Fine-tune, "
        "which moves the weights; if that isn't enough, keep the layer in float.",
        _float_kernel,
    ),
)

_NETWORK: tuple[Symptom, ...] = (
    Symptom(
        lambda it: not any(map(_bad, (*it.tensors, *it.kernels))) and _lowest(it) < _LOW_OUTPUT_DB and _adds_up(it),
        "No tensor or kernel is bad by itself, but the errors add up.",
        "Leave bias correction on (Settings.bias_correction), and fine-tune (QAT), which lets each layer make up for "
        "the ones before it.",
    ),
)


def advise(diagnosis: Diagnosis, *, worst: int | None = None) -> tuple[Advice, ...]:
    """Say what to try.

    Args:
        diagnosis: from `diagnose`.
        worst: speak of that many of the worst tensors and kernels at most; of all if not given.

    Returns:
        Advice about each bad tensor and kernel, the worst first, then about the network; nothing where nothing
        stands out.

    Example:
        >>> from keras_qat.types import QuantSpec
        >>> bad = TensorDiagnosis("relu", "relu", QuantSpec(), 1.5, 12.0, 12.0, saturated=0.08, clipping=0.9)
        >>> (advice,) = advise(Diagnosis((bad,), (), (), images=64))
        >>> advice.to_dict()["rule"]
        {'select': 'relu', 'output': False}
    """
    found = diagnosis.worst(len(diagnosis.tensors) + len(diagnosis.kernels) if worst is None else worst)
    advices = [_first(_TABLES[type(it)], it, it.label) for it in found]
    return tuple(advice for advice in (*advices, _first(_NETWORK, diagnosis, None)) if advice is not None)


def diagnosis_record(diagnosis: Diagnosis) -> dict[str, Any]:
    """The figures and the advice as JSON can hold them: what `keras-qat diagnose --output` and a run write."""
    return {**diagnosis.to_dict(), "advice": [advice.to_dict() for advice in advise(diagnosis)]}


_TABLES: Mapping[type, tuple[Symptom, ...]] = {TensorDiagnosis: _TENSOR, KernelDiagnosis: _KERNEL}


def _first(table: tuple[Symptom, ...], it: Any, about: str | None) -> Advice | None:
    return next((symptom.advise(it, about) for symptom in table if symptom.shows(it)), None)


def _lowest(it: Diagnosis) -> float:
    return min((output.cumulative for output in it.outputs), default=math.inf)


def _adds_up(it: Diagnosis) -> bool:
    # Infinite minus infinite is no number; an exact tensor adds nothing up.
    gaps = [tensor.alone - tensor.cumulative if tensor.alone > tensor.cumulative else 0.0 for tensor in it.tensors]
    return bool(gaps) and median(gaps) > _FAR_BELOW_DB

"""From the figures of a diagnosis to what the user can try.

Tensors, kernels and the network have a table of symptoms each, and the first symptom that shows gives the advice. A
tensor or kernel is bad if it has lost more than three of its bits, which is below 30 dB with 8 bits. Numbers of a bell
shape lose one to two bits at the best range, so a greater loss has a cause of its own.
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
"""The share of the error from which on clipping is its cause."""

_HEAVY = 0.001
"""The share of numbers that no good range clips. The best range for a bell shape clips a tenth of that."""

_FAR_BELOW_DB = 6.0
"""If the cumulative SQNR is lower than the SQNR alone by this much in the median, a bit, errors add up."""

_LOW_OUTPUT_DB = 30.0


@dataclass(frozen=True)
class Advice:
    """What was found and what to do about it.

    Args:
        about: The label of the tensor or kernel; `None` for the network as a whole.
        finding: What the figures show.
        remedy: What to try, the cheapest first.
        rule: An override that keeps the tensor or kernel in float, as the last resort (docs/overrides.md).
    """

    about: str | None
    finding: str
    remedy: str
    rule: Rule | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the advice as JSON types, with the rule as in a file of overrides."""
        rule = None if self.rule is None else rule_to_json(self.rule)
        return {"about": self.about, "finding": self.finding, "remedy": self.remedy, "rule": rule}


def advise(diagnosis: Diagnosis, *, worst: int | None = None) -> tuple[Advice, ...]:
    """Say what to try.

    Args:
        diagnosis: The figures, from `diagnose`.
        worst: How many of the worst tensors and kernels to consider; all by default.

    Returns:
        Advice about each bad tensor and kernel, the worst first, and then about the network. Empty if nothing stands
        out.

    Example:
        >>> from keras_qat.types import QuantSpec
        >>> bad = TensorDiagnosis("relu", "relu", QuantSpec(), 1.5, 12.0, 12.0, saturated=0.08, clipping=0.9)
        >>> (advice,) = advise(Diagnosis((bad,), (), (), images=64))
        >>> advice.to_dict()["rule"]
        {'select': 'relu', 'output': False}
    """
    considered = diagnosis.worst(len(diagnosis.tensors) + len(diagnosis.kernels) if worst is None else worst)
    advices = [_first(_TABLES[type(figures)], figures, figures.label) for figures in considered]
    return tuple(advice for advice in (*advices, _first(_NETWORK, diagnosis, None)) if advice is not None)


def diagnosis_record(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the figures and the advice as JSON types: what `keras-qat diagnose --output` and a run write."""
    return {**diagnosis.to_dict(), "advice": [advice.to_dict() for advice in advise(diagnosis)]}


@dataclass(frozen=True)
class Symptom:
    """A row of a table: when it applies, and the advice then.

    Args:
        shows: Whether figures have the symptom.
        finding: A format string with the fields `x`, the figures, and `percent`, the share of numbers that saturate.
        remedy: What to try.
        rule: The rule that keeps the tensor or kernel in float; `None` where that is no remedy.
    """

    shows: Callable[[Any], bool]
    finding: str
    remedy: str
    rule: Callable[[Any], Rule] | None = None

    def advise(self, figures: Any, about: str | None) -> Advice:
        """Return the advice for one set of figures."""
        finding = self.finding.format(x=figures, percent=percent(getattr(figures, "saturated", 0)))
        return Advice(about, finding, self.remedy, None if self.rule is None else self.rule(figures))


def _first(table: tuple[Symptom, ...], figures: Any, about: str | None) -> Advice | None:
    return next((symptom.advise(figures, about) for symptom in table if symptom.shows(figures)), None)


def _bad(figures: TensorDiagnosis | KernelDiagnosis) -> bool:
    return figures.alone < DB_PER_BIT * (figures.spec.bits - LOST_BITS)


def _float_tensor(tensor: TensorDiagnosis) -> Rule:
    return Rule(tensor.producer, output=False)


def _float_kernel(kernel: KernelDiagnosis) -> Rule:
    # With float weights the layer computes in float in any case, so nothing is gained by rounding its input.
    return Rule(kernel.name, inputs=False, weights=False)


def _lowest_output(diagnosis: Diagnosis) -> float:
    return min((output.cumulative for output in diagnosis.outputs), default=math.inf)


def _adds_up(diagnosis: Diagnosis) -> bool:
    # A tensor without an error has an infinite SQNR; the difference of two would be NaN.
    gaps = [x.alone - x.cumulative if x.alone > x.cumulative else 0.0 for x in diagnosis.tensors]
    return bool(gaps) and median(gaps) > _FAR_BELOW_DB


_TENSOR: tuple[Symptom, ...] = (
    Symptom(
        lambda x: _bad(x) and x.clipping > _MOSTLY and x.saturated > _HEAVY,
        "{x.alone:.1f} dB; the range {x.amax:.4g} is too small: {percent} of the numbers saturate, "
        "{x.clipping:.0%} of the error.",
        "Calibrate with more images (--calibration-images), or with --calibration-method minmax.",
        _float_tensor,
    ),
    Symptom(
        lambda x: _bad(x) and x.clipping > _MOSTLY,
        "{x.alone:.1f} dB; outliers beyond the range {x.amax:.4g}: {percent} of the numbers, {x.clipping:.0%} of "
        "the error.",
        "Calibrate with more images (--calibration-images), which may hold such outliers; if that doesn't help, keep "
        "the tensor in float.",
        _float_tensor,
    ),
    Symptom(
        _bad,
        "{x.alone:.1f} dB; the range {x.amax:.4g} is far larger than most of the numbers; {percent} saturate.",
        "A few outliers set the range. Calibrate with --calibration-method mse, entropy or percentile; if you already "
        "do, keep the tensor in float.",
        _float_tensor,
    ),
)

_KERNEL: tuple[Symptom, ...] = (
    Symptom(
        lambda x: _bad(x) and x.spec.bits < 8,  # noqa: PLR2004
        "{x.alone:.1f} dB with {x.spec.bits} bits.",
        "The kernel needs more bits. Raise weight_bits, or keep the layer in float.",
        _float_kernel,
    ),
    Symptom(
        _bad,
        "{x.alone:.1f} dB.",
        "A few large weights in an output channel leave few steps for the others. Fine-tune, "
        "which moves the weights; if that isn't enough, keep the layer in float.",
        _float_kernel,
    ),
)

_NETWORK: tuple[Symptom, ...] = (
    Symptom(
        lambda x: not any(map(_bad, (*x.tensors, *x.kernels))) and _lowest_output(x) < _LOW_OUTPUT_DB and _adds_up(x),
        "No tensor or kernel is bad by itself, but the errors add up.",
        "Leave bias correction on (Settings.bias_correction), and fine-tune (QAT), which lets each layer make up for "
        "the ones before it.",
    ),
)

_TABLES: Mapping[type, tuple[Symptom, ...]] = {TensorDiagnosis: _TENSOR, KernelDiagnosis: _KERNEL}

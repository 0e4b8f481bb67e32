"""Does a file keep what is promised? It computes what was simulated, tensor by tensor and output by output."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from scipy.stats import binomtest

from keras_qat.evaluation import OutputScores
from keras_qat.types import TaskKind
from keras_qat.verify.numbers import TensorError

MIN_SIMULATION_AGREEMENT = 0.995
"""The deployed file should give the simulation's class on at least this share of images.

If quantization itself changes more classes than that, the best classes of many images nearly tie, and a number that is
rounded the other way changes some of them too. Then the file may differ from its simulation no more often than the
simulation differs from float.
"""

ATTACH = "Report it with the .onnx file, its .keras model and what `keras-qat verify --json` prints."
"""The end of a message about a file that isn't right, which is a bug of keras-qat or of the engine."""

_SIGNIFICANCE = 0.01
"""A run fails if its misses have less than this probability at the promised share."""

MIN_SIMULATION_SQNR = 25.0
MAX_EXTRA_ERROR = 0.1
"""Numbers of a file should be at least so many dB from the simulation's. If quantization itself costs more, the two
drift apart by about half of that (docs/architecture.md), and yet are about equally far from the float model. Then the
mean error of the file against the float model may be larger than the simulation's by at most this share, as far as the
ends of their intervals tell."""

MAX_TENSOR_STEPS = 1.0
"""The largest error of a tensor whose inputs are equal: a number next to a border may be rounded the other way."""

MAX_TENSOR_CARRIED = 0.02
MAX_TENSOR_STRAYED = 0.005
"""The largest distance from that border, in steps, and the largest share of numbers that did not lie on it. In files
of MobileNetV2 and EfficientNet-Lite0, float32 sums carried numbers by up to 0.00002 of a step."""

MAX_TENSOR_CARRIED_FP16 = 0.5
MAX_TENSOR_STRAYED_FP16 = 0.05
"""The same in FP16. There a convolution's result, its scales and its bias are each rounded to 11 bits: a number q moves
by up to about 0.002 · |q| steps, so that large ones cross a border more often (ResNet50: 0.2% of a tensor, at most
1%)."""

MIN_FLOAT_SQNR = 60.0
MIN_FLOAT_SQNR_FP16 = 30.0
"""The smallest SQNR of a float file's outputs in dB. They differ from those of its Keras model only by the order of
sums (over 100 dB for a ResNet50), in FP16 also by the rounding of each step to 11 bits; nothing amplifies that."""


def tensor_miss(name: str, errors: Iterable[TensorError], *, half: bool = False) -> str | None:
    """Why the tensors of a file aren't those of the simulation; `None` if they are.

    Args:
        name: what the message calls the file.
        errors: the errors of all tensors, in the order of the file.
        half: whether the file is in FP16.

    Example:
        >>> tensor_miss("PTQ", [TensorError("conv_quantize", differing=0.01, worst=1.0, carried=0.002)])
    """
    furthest = MAX_TENSOR_CARRIED_FP16 if half else MAX_TENSOR_CARRIED
    most = MAX_TENSOR_STRAYED_FP16 if half else MAX_TENSOR_STRAYED
    for error in errors:
        if error.worst > MAX_TENSOR_STEPS or error.carried > furthest or error.strayed > most:
            return (
                f"The deployed {name} file doesn't compute what was simulated, first at {error.tensor!r}. "
                f"Received: {100 * error.differing:.2g}% of its numbers differ, by up to {error.worst:.3g} steps "
                f"({MAX_TENSOR_STEPS:.3g} is allowed); they were carried over a border by up to {error.carried:.3g} "
                f"steps ({furthest:.3g}), {100 * error.strayed:.2g}% by more than 0.001 ({100 * most:.2g}%). Don't "
                f"deploy it. To go on, keep that tensor in float by a rule in --overrides (docs/overrides.md). {ATTACH}"
            )
    return None


def class_miss(name: str, agreement: float, images: int, keras_agreement: float | None) -> str | None:
    """Why the classes of a file aren't those of its Keras model; `None` if they are, as often as is promised.

    Args:
        name: what the message calls the file.
        agreement: share of images with the same class, 0 to 1.
        images: number of images.
        keras_agreement: share of images on which the quantized Keras model gives the class of the float one; `None` if
            unknown.

    Example:
        >>> class_miss("PTQ", 0.98, 100, keras_agreement=0.97)
    """
    promised = min(MIN_SIMULATION_AGREEMENT, 1.0 if keras_agreement is None else keras_agreement)
    misses = round((1 - agreement) * images)
    if binomtest(misses, images, 1 - promised, alternative="greater").pvalue >= _SIGNIFICANCE:
        return None
    return (
        f"The deployed {name} file doesn't classify as was simulated. Received: the same class on "
        f"{100 * agreement:.2f}% of {images} images; at least {100 * promised:.1f}% was "
        "promised. Don't deploy it before more images (--validation-images, or --images of verify) say otherwise: if "
        f"the tensors are right one by one, these are images whose best classes nearly tie. {ATTACH}"
    )


@dataclass(frozen=True)
class OutputComparison:
    """One output of a file, of its Keras model, and of the float Keras model.

    Args:
        deployed: the file against its own Keras model.
        file_and_float: the file against the float model; `None` if that is unknown.
        keras_and_float: its own Keras model against the float model; `None` likewise.
    """

    deployed: OutputScores
    file_and_float: OutputScores | None = None
    keras_and_float: OutputScores | None = None


def output_miss(name: str, outputs: Iterable[OutputComparison]) -> str | None:
    """Why an output of a file isn't that of its Keras model, by its task; `None` if all are, as far as is promised.

    Nothing is promised without the float model, which tells how far two right runs of a quantized network drift apart.

    Args:
        name: what the message calls the file.
        outputs: the outputs.

    Example:
        >>> from keras_qat.evaluation import Figure
        >>> scores = OutputScores("box", "regression", 10, {"sqnr": Figure(31.0)})
        >>> output_miss("PTQ", [OutputComparison(scores, scores, scores)])
    """
    misses = (_MISSES[one.deployed.kind](name, one) for one in outputs)
    return next((miss for miss in misses if miss is not None), None)


def _class_output_miss(name: str, one: OutputComparison) -> str | None:
    if one.keras_and_float is None:
        return None
    agreement, kept = one.deployed.value("agreement"), one.keras_and_float.value("agreement")
    named = f"{name} ({one.deployed.output})"
    return None if agreement is None else class_miss(named, agreement, one.deployed.images, kept)


def _position_miss(name: str, one: OutputComparison) -> str | None:
    """Positions of an image depend on each other, so the test is that of the mean over images: its 95% interval."""
    found, kept = one.deployed.figures.get("agreement"), None
    if one.keras_and_float is not None:
        kept = one.keras_and_float.value("agreement")
    if found is None or found.value is None or kept is None:
        return None
    promised = min(MIN_SIMULATION_AGREEMENT, kept)
    if max(found.value, found.high or 0.0) >= promised:
        return None
    return (
        f"The deployed {name} file doesn't give the classes that were simulated at the output {one.deployed.output!r}. "
        f"Received: the same class at {100 * found.value:.2f}% of the positions of {one.deployed.images} samples; at "
        f"least {100 * promised:.1f}% was promised. Don't deploy it before more samples (--validation-images, or "
        f"--images of verify) say otherwise. {ATTACH}"
    )


def _number_miss(name: str, one: OutputComparison) -> str | None:
    if one.keras_and_float is None or one.file_and_float is None:
        return None
    sqnr = one.deployed.value("sqnr")
    if sqnr is not None and sqnr >= MIN_SIMULATION_SQNR:
        return None
    after, before = (scores.figures["mean_error"] for scores in (one.file_and_float, one.keras_and_float))
    if before.value is None:  # Where the Keras models themselves give no finite numbers, there is nothing to compare.
        return None
    least = after.value if after.low is None else after.low
    most = before.value if before.high is None else before.high
    if least is not None and least <= (1 + MAX_EXTRA_ERROR) * most:
        return None
    received = (
        "numbers that aren't finite"
        if sqnr is None or after.value is None
        else f"{sqnr:.1f} dB of SQNR against the simulation, and a mean error against the float model of "
        f"{after.value:.3g}, where the simulation has {before.value:.3g}"
    )
    return (
        f"The deployed {name} file doesn't compute the numbers that were simulated at the output "
        f"{one.deployed.output!r}. Received: {received}; at least {MIN_SIMULATION_SQNR:.0f} dB was promised, or an "
        f"error at most {MAX_EXTRA_ERROR:.0%} larger than the simulation's. Don't deploy it. {ATTACH}"
    )


_MISSES: Mapping[TaskKind, Callable[[str, OutputComparison], str | None]] = {
    "classification": _class_output_miss,
    "segmentation": _position_miss,
    "regression": _number_miss,
}


def score_miss(name: str, sqnr: float | None, *, half: bool = False) -> str | None:
    """Why the outputs of a float file aren't those of its Keras model; `None` if they are.

    Args:
        name: what the message calls the file.
        sqnr: SQNR of its outputs against those of the Keras model, in dB; `None` if they aren't finite, or the model's
            are all 0.
        half: whether the file is in FP16.

    Example:
        >>> score_miss("baseline", 110.0)
    """
    least = MIN_FLOAT_SQNR_FP16 if half else MIN_FLOAT_SQNR
    if sqnr is not None and sqnr >= least:
        return None
    received = (
        "no signal-to-noise ratio (outputs not finite, or all 0 in the model)"
        if sqnr is None
        else f"a signal-to-noise ratio of {sqnr:.1f} dB"
    )
    return (
        f"The deployed {name} file doesn't compute what its Keras model computes. Received: {received}; at least "
        f"{least:.0f} dB is required. Don't deploy it. The .keras file and the SavedModel are not concerned"
        f"{'; --precision fp32 rounds less' if half else ''}. {ATTACH}"
    )

"""What a run promises: each deployed file computes what was simulated, tensor by tensor and class by class."""

from collections.abc import Iterable

from scipy.stats import binomtest

from keras_qat.verify.numbers import TensorError

MIN_SIMULATION_AGREEMENT = 0.995
"""The deployed file should give the simulation's class on at least this share of images.

Where quantization itself changes more classes than that, the best classes of many images nearly tie, and rounding that
only falls the other way changes some of them too: then the file may differ from its simulation no more often than the
simulation differs from float.
"""

_SIGNIFICANCE = 0.01
"""A run fails when its misses have less than this chance of occurring at the promised share."""

MAX_TENSOR_STEPS = 1.0
MAX_TENSOR_DIFFERING = 0.005
"""Given equal integers before it, a tensor's numbers on the border of two steps may fall on the other side; no more."""

MAX_TENSOR_DIFFERING_FP16 = 0.05
"""In FP16 a convolution's result, its scales and its bias are each rounded to 11 bits: a number q moves by up to some
0.002 · |q| steps, which carries the large ones over a border more often (ResNet50: 0.2% of a tensor, at most 1%)."""

MIN_FLOAT_SQNR = 60.0
MIN_FLOAT_SQNR_FP16 = 30.0
"""dB. The outputs of a float file differ from its Keras model's by the order of sums alone (a ResNet50's by over 100
dB), in FP16 by 11 bits a step as well; nothing amplifies that."""


def tensor_miss(name: str, errors: Iterable[TensorError], *, half: bool = False) -> str | None:
    """Why the tensors of a file aren't those of the simulation; `None` if they are.

    Args:
        name: what the message calls the file.
        errors: in the order of the file.
        half: the file is in FP16.

    Example:
        >>> tensor_miss("PTQ", [TensorError("conv_quantize", differing=0.001, worst=1.0)])
    """
    most = MAX_TENSOR_DIFFERING_FP16 if half else MAX_TENSOR_DIFFERING
    for error in errors:
        if error.worst > MAX_TENSOR_STEPS or error.differing > most:
            return (
                f"The deployed {name} file doesn't compute what was simulated, first at {error.tensor!r}. "
                f"Received: {100 * error.differing:.2g}% of its numbers differ, by up to {error.worst:.3g} steps; "
                f"{100 * most:.2g}% and {MAX_TENSOR_STEPS:.3g} are allowed. Don't deploy it; "
                "please report the model."
            )
    return None


def class_miss(name: str, agreement: float, images: int, keras_agreement: float | None) -> str | None:
    """Why the classes of a file aren't those of its Keras model; `None` if they are, as often as was promised.

    Args:
        name: what the message calls the file.
        agreement: share of images with the same class, 0 to 1.
        images: how many.
        keras_agreement: share on which the quantized Keras model says what the float one says; `None` if unknown.

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
        "promised. Don't deploy it; please report the model."
    )


def score_miss(name: str, sqnr: float | None, *, half: bool = False) -> str | None:
    """Why the outputs of a float file aren't those of its Keras model; `None` if they are.

    Args:
        name: what the message calls the file.
        sqnr: of its outputs against those of the Keras model, in dB; `None` where they aren't finite, or the
            model's are all 0.
        half: the file is in FP16.

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
        f"{least:.0f} dB is required. Don't deploy it; please report the model."
    )

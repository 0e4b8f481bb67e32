"""What a run promises: each deployed file computes what was simulated, tensor by tensor and class by class."""

from scipy.stats import binomtest

from keras_qat.errors import GateMissedError
from keras_qat.report import Record

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


def check_gates(record: Record) -> None:
    """Hold a record to what was promised.

    Raises:
        GateMissedError: a quantized tensor of a deployed file is not what was simulated, or the file gives another
            class than its Keras model on more images than was promised, by an exact one-sided binomial test.
    """
    half = record.settings.get("precision") == "fp16"
    most = MAX_TENSOR_DIFFERING_FP16 if half else MAX_TENSOR_DIFFERING
    for row in record.rows:
        for error in row.tensor_errors:
            if error.worst > MAX_TENSOR_STEPS or error.differing > most:
                raise GateMissedError(
                    f"The deployed {row.name} file doesn't compute what was simulated, first at {error.tensor!r}. "
                    f"Received: {100 * error.differing:.2g}% of its numbers differ, by up to {error.worst:.3g} steps; "
                    f"{100 * most:.2g}% and {MAX_TENSOR_STEPS:.3g} are allowed. Don't deploy it; "
                    "please report the model."
                )
        promised = min(MIN_SIMULATION_AGREEMENT, row.keras_agreement or 1.0)
        misses = round((1 - row.simulation_agreement) * record.images)
        if binomtest(misses, record.images, 1 - promised, alternative="greater").pvalue < _SIGNIFICANCE:
            raise GateMissedError(
                f"The deployed {row.name} file doesn't classify as was simulated. Received: the same class on "
                f"{100 * row.simulation_agreement:.2f}% of {record.images} images; at least {100 * promised:.1f}% was "
                "promised. Don't deploy it; please report the model."
            )

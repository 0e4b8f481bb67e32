"""Post-training quantization: choose the range of every tensor from a few images."""

from keras_qat.calibration.bias_correction import BiasCorrection, correct_bias
from keras_qat.calibration.calibrate import calibrate
from keras_qat.calibration.histogram import Histogram, merge
from keras_qat.calibration.methods import METHODS
from keras_qat.calibration.observers import OBSERVERS, Choice, Observer, find_observer

__all__ = [
    "METHODS",
    "OBSERVERS",
    "BiasCorrection",
    "Choice",
    "Histogram",
    "Observer",
    "calibrate",
    "correct_bias",
    "find_observer",
    "merge",
]

"""Post-training quantization: choose the range of every tensor from a few images."""

from keras_qat.calibration.calibrate import calibrate
from keras_qat.calibration.histogram import Histogram, merge
from keras_qat.calibration.methods import METHODS, find_method

__all__ = ["METHODS", "Histogram", "calibrate", "find_method", "merge"]

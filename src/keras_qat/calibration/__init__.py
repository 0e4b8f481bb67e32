"""Post-training quantization: choose the range of every tensor from a few images."""

from keras_qat.calibration.bias_correction import BiasCorrection, correct_bias
from keras_qat.calibration.cache import cache_folder, cached_ranges, digest, ranges_key
from keras_qat.calibration.calibrate import calibrate
from keras_qat.calibration.histogram import Histogram, merge
from keras_qat.calibration.inputs import read_batches
from keras_qat.calibration.methods import METHODS
from keras_qat.calibration.observers import OBSERVERS, Choice, Observer, find_observer
from keras_qat.calibration.ranges import Ranges
from keras_qat.calibration.ranges_diff import RangeChange, RangesDiff

__all__ = [
    "METHODS",
    "OBSERVERS",
    "BiasCorrection",
    "Choice",
    "Histogram",
    "Observer",
    "RangeChange",
    "Ranges",
    "RangesDiff",
    "cache_folder",
    "cached_ranges",
    "calibrate",
    "correct_bias",
    "digest",
    "find_observer",
    "merge",
    "ranges_key",
    "read_batches",
]

"""Post-training quantization: choose the range of every tensor from a few images."""

from keras_qat.calibration.batch_norm import Reestimation, reestimate_batch_norms
from keras_qat.calibration.bias_correction import BiasCorrection, correct_bias
from keras_qat.calibration.cache import cache_folder, cached_ranges, digest, ranges_key
from keras_qat.calibration.calibrate import calibrate, calibrate_by_all
from keras_qat.calibration.histogram import Histogram, merge
from keras_qat.calibration.inputs import read_batches
from keras_qat.calibration.methods import METHODS
from keras_qat.calibration.observers import OBSERVERS, Choice, Observer, find_observer, register_observer
from keras_qat.calibration.ranges import Ranges
from keras_qat.calibration.ranges_diff import RangeChange, RangesDiff
from keras_qat.calibration.weight_ranges import WEIGHT_METHODS, WeightRanges, choose_weight_ranges, find_weight_method

__all__ = [
    "METHODS",
    "OBSERVERS",
    "WEIGHT_METHODS",
    "BiasCorrection",
    "Choice",
    "Histogram",
    "Observer",
    "RangeChange",
    "Ranges",
    "RangesDiff",
    "Reestimation",
    "WeightRanges",
    "cache_folder",
    "cached_ranges",
    "calibrate",
    "calibrate_by_all",
    "choose_weight_ranges",
    "correct_bias",
    "digest",
    "find_observer",
    "find_weight_method",
    "merge",
    "ranges_key",
    "read_batches",
    "reestimate_batch_norms",
    "register_observer",
]

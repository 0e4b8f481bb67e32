from .histogram import Histogram, merge
from .intake import read_batches, require_variety
from .kernel_ranges import (
    WEIGHT_METHODS,
    WeightRanges,
    choose_weight_ranges,
    copy_network,
    find_weight_method,
    kernel_calls,
    require_made_of,
)
from .measure import calibrate, calibrate_by_all
from .methods import METHODS, OBSERVERS, Choice, Observer, find_observer, register_observer
from .options import CalibrationOptions
from .quantization import Quantized, insert, quantize
from .ranges import RangeChange, Ranges, RangesDiff, cache_folder, cached_ranges, digest, ranges_key
from .repair import BiasCorrection, Reestimation, correct_bias, reestimate_batch_norms

__all__ = [
    "METHODS",
    "OBSERVERS",
    "WEIGHT_METHODS",
    "BiasCorrection",
    "CalibrationOptions",
    "Choice",
    "Histogram",
    "Observer",
    "Quantized",
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
    "copy_network",
    "correct_bias",
    "digest",
    "find_observer",
    "find_weight_method",
    "insert",
    "kernel_calls",
    "merge",
    "quantize",
    "ranges_key",
    "read_batches",
    "reestimate_batch_norms",
    "register_observer",
    "require_made_of",
    "require_variety",
]

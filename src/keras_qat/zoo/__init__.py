"""Networks known by name, their weights, and the checks on them."""

from keras_qat.zoo.build import build_model
from keras_qat.zoo.check import check_finite
from keras_qat.zoo.registry import SEED_MODELS, Builder, ZooEntry, find, names, register

__all__ = ["SEED_MODELS", "Builder", "ZooEntry", "build_model", "check_finite", "find", "names", "register"]

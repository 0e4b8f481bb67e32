"""Training: fine-tuning of fake-quantized models, schedules, checkpoints, the float baseline."""

from keras_qat.training.baseline import train_baseline
from keras_qat.training.checks import require_label_free, require_probabilities
from keras_qat.training.devices import device_scope, find_devices, require_device_recipe, shareable
from keras_qat.training.distiller import Distiller
from keras_qat.training.fine_tune import FineTuned, fine_tune
from keras_qat.training.freezing import FreezeBatchNorm, FreezeRanges
from keras_qat.training.guards import FiniteLoss
from keras_qat.training.history import EpochRecord
from keras_qat.training.optimizers import OPTIMIZERS, make_optimizer
from keras_qat.training.recipe import Distillation, Recipe
from keras_qat.training.schedule import PiecewiseWithWarmup, make_schedule, parse_schedule
from keras_qat.training.tensorboard import RangesToTensorBoard

__all__ = [
    "OPTIMIZERS",
    "Distillation",
    "Distiller",
    "EpochRecord",
    "FineTuned",
    "FiniteLoss",
    "FreezeBatchNorm",
    "FreezeRanges",
    "PiecewiseWithWarmup",
    "RangesToTensorBoard",
    "Recipe",
    "device_scope",
    "find_devices",
    "fine_tune",
    "make_optimizer",
    "make_schedule",
    "parse_schedule",
    "require_device_recipe",
    "require_label_free",
    "require_probabilities",
    "shareable",
    "train_baseline",
]

"""Training: fine-tuning of fake-quantized models, schedules, checkpoints, the float baseline."""

from keras_qat.training.baseline import train_baseline
from keras_qat.training.fine_tune import FineTuned, fine_tune
from keras_qat.training.history import EpochRecord
from keras_qat.training.optimizers import OPTIMIZERS, make_optimizer
from keras_qat.training.recipe import Recipe
from keras_qat.training.schedule import PiecewiseWithWarmup, make_schedule, parse_schedule

__all__ = [
    "OPTIMIZERS",
    "EpochRecord",
    "FineTuned",
    "PiecewiseWithWarmup",
    "Recipe",
    "fine_tune",
    "make_optimizer",
    "make_schedule",
    "parse_schedule",
    "train_baseline",
]

from .callbacks import FiniteLoss, FreezeBatchNorm, FreezeRanges, RangesToTensorBoard, freeze_batch_norms
from .checkpoint import EpochRecord
from .devices import device_scope, find_devices, require_device_recipe, shareable
from .distiller import Distiller
from .fine_tuning import FineTuned, fine_tune, train_baseline
from .label_checks import require_label_free
from .objectives import require_trainable
from .optimizers import OPTIMIZERS, PiecewiseWithWarmup, make_optimizer, make_schedule
from .recipe import Distillation, Recipe, parse_schedule

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
    "freeze_batch_norms",
    "make_optimizer",
    "make_schedule",
    "parse_schedule",
    "require_device_recipe",
    "require_label_free",
    "require_trainable",
    "shareable",
    "train_baseline",
]

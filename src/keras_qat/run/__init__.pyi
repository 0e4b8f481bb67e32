from .conclude import check_gates
from .folder import SavedRun, open_run, saved_settings, seed_for, setting_beside
from .pipeline import run, train
from .ptq import quantize_after_training
from .qat import train_quantized
from .settings import Settings
from .start import open_start
from .verification import VerificationSettings, verify_files

__all__ = [
    "SavedRun",
    "Settings",
    "VerificationSettings",
    "check_gates",
    "open_run",
    "open_start",
    "quantize_after_training",
    "run",
    "saved_settings",
    "seed_for",
    "setting_beside",
    "train",
    "train_quantized",
    "verify_files",
]

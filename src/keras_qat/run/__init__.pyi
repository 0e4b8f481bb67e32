from .conclude import check_gates
from .folder import DIAGNOSES, PAGE, RunFolder, option_of, require_file_or_run, require_not_of_run, seed_for
from .needs import require_files_for
from .pipeline import quantize_after_training, run, train, train_quantized
from .settings import OPTIONS, Option, Settings, declared
from .start import load_saved, open_start
from .verification import VerificationSettings, verify_files

__all__ = [
    "DIAGNOSES",
    "OPTIONS",
    "PAGE",
    "Option",
    "RunFolder",
    "Settings",
    "VerificationSettings",
    "check_gates",
    "declared",
    "load_saved",
    "open_start",
    "option_of",
    "quantize_after_training",
    "require_file_or_run",
    "require_files_for",
    "require_not_of_run",
    "run",
    "seed_for",
    "train",
    "train_quantized",
    "verify_files",
]

from .cases import Case, check_file, check_saved_model, is_quantized
from .deployed import Mismatch
from .numbers import TensorError, tensor_errors
from .outputs import RANDOM_NUMBERS, Inputs, images_of, random_numbers
from .promises import OutputComparison, class_miss, output_miss, tensor_miss
from .results import FileCheck, Verification, describe_proof, verification_table
from .structure import FileVerification, require_verified, verify_file

__all__ = [
    "RANDOM_NUMBERS",
    "Case",
    "FileCheck",
    "FileVerification",
    "Inputs",
    "Mismatch",
    "OutputComparison",
    "TensorError",
    "Verification",
    "check_file",
    "check_saved_model",
    "class_miss",
    "describe_proof",
    "images_of",
    "is_quantized",
    "output_miss",
    "random_numbers",
    "require_verified",
    "tensor_errors",
    "tensor_miss",
    "verification_table",
    "verify_file",
]

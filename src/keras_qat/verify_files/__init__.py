"""Files held to what they were made from: Q/DQ pairs to the placement, numbers and classes to the Keras model."""

from keras_qat.verify_files.case import Case
from keras_qat.verify_files.check import check_file
from keras_qat.verify_files.contents import read_contents
from keras_qat.verify_files.inputs import Inputs, images_of, random_numbers
from keras_qat.verify_files.record import FileCheck, Verification
from keras_qat.verify_files.saved_model import check_saved_model
from keras_qat.verify_files.settings import VerificationSettings
from keras_qat.verify_files.table import describe_proof, verification_table
from keras_qat.verify_files.verify import verify_files

__all__ = [
    "Case",
    "FileCheck",
    "Inputs",
    "Verification",
    "VerificationSettings",
    "check_file",
    "check_saved_model",
    "describe_proof",
    "images_of",
    "random_numbers",
    "read_contents",
    "verification_table",
    "verify_files",
]

"""What is wrong with this machine or that ONNX file, what it costs, and what to do."""

from keras_qat.doctor.examination import Examination, examine
from keras_qat.doctor.file_table import file_table
from keras_qat.doctor.finding import Finding, Severity
from keras_qat.doctor.machine import Machine, advise, read_machine
from keras_qat.doctor.machine_table import machine_table

__all__ = [
    "Examination",
    "Finding",
    "Machine",
    "Severity",
    "advise",
    "examine",
    "file_table",
    "machine_table",
    "read_machine",
]

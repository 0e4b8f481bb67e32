"""The results of a run: a frozen record, as Markdown, JSON and on the terminal; a diagnosis as Markdown."""

from keras_qat.report.diagnosis import describe_diagnosis
from keras_qat.report.environment import Environment, read_environment
from keras_qat.report.record import Record, Row
from keras_qat.report.table import markdown, terminal_table

__all__ = ["Environment", "Record", "Row", "describe_diagnosis", "markdown", "read_environment", "terminal_table"]

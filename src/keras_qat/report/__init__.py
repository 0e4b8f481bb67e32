"""The results of a run: a frozen record, as Markdown, JSON and on the terminal; so a diagnosis and a benchmark."""

from keras_qat.report.benchmark_table import benchmark_table
from keras_qat.report.diagnosis import describe_diagnosis
from keras_qat.report.environment import Environment, read_environment
from keras_qat.report.evaluation_table import classification_table, evaluation_notes, evaluation_table
from keras_qat.report.latency_plot import plot_latency, require_plot
from keras_qat.report.record import Record, Row
from keras_qat.report.table import markdown, terminal_table

__all__ = [
    "Environment",
    "Record",
    "Row",
    "benchmark_table",
    "classification_table",
    "describe_diagnosis",
    "evaluation_notes",
    "evaluation_table",
    "markdown",
    "plot_latency",
    "read_environment",
    "require_plot",
    "terminal_table",
]

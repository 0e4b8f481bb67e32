"""The results of a run: a frozen record, as a page, Markdown, JSON, on the terminal; so a diagnosis, a benchmark."""

from keras_qat.report.benchmark_table import benchmark_table
from keras_qat.report.diagnosis import describe_diagnosis
from keras_qat.report.environment import Environment, read_environment
from keras_qat.report.evaluation_table import classification_table, evaluation_notes, evaluation_table
from keras_qat.report.latency_plot import plot_latency, require_plot
from keras_qat.report.record import Record, Row
from keras_qat.report.table import markdown, terminal_table
from keras_qat.report.write_report import markdown_report, write_page, write_report

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
    "markdown_report",
    "plot_latency",
    "read_environment",
    "require_plot",
    "terminal_table",
    "write_page",
    "write_report",
]

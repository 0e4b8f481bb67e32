from .diagnosis_text import describe_diagnosis
from .documents import markdown_report, write_page, write_report
from .in_words import key_figures, verdict
from .latency_plot import plot_latency, require_plot
from .page.render import render
from .record import Record, Row
from .run_files import read_run
from .tables import (
    COLUMNS,
    benchmark_table,
    classification_table,
    evaluation_notes,
    evaluation_table,
    markdown,
    terminal_table,
    title,
)

__all__ = [
    "COLUMNS",
    "Record",
    "Row",
    "benchmark_table",
    "classification_table",
    "describe_diagnosis",
    "evaluation_notes",
    "evaluation_table",
    "key_figures",
    "markdown",
    "markdown_report",
    "plot_latency",
    "read_run",
    "render",
    "require_plot",
    "terminal_table",
    "title",
    "verdict",
    "write_page",
    "write_report",
]

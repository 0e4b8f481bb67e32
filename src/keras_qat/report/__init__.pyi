from .diagnosis_text import describe_diagnosis, load_diagnosis
from .documents import markdown_report, write_page
from .evaluation_tables import evaluation_notes, evaluation_table
from .in_words import key_figures, verdict
from .latency_plot import plot_latency, require_plot
from .page.render import render
from .record import Record, Row, RunFiles, load_record
from .tables import (
    COLUMNS,
    benchmark_table,
    classification_table,
    markdown,
    result_tables,
    terminal_table,
    title,
)

__all__ = [
    "COLUMNS",
    "Record",
    "Row",
    "RunFiles",
    "benchmark_table",
    "classification_table",
    "describe_diagnosis",
    "evaluation_notes",
    "evaluation_table",
    "key_figures",
    "load_diagnosis",
    "load_record",
    "markdown",
    "markdown_report",
    "plot_latency",
    "render",
    "require_plot",
    "result_tables",
    "terminal_table",
    "title",
    "verdict",
    "write_page",
]

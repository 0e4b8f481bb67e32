"""Which row of a record is which: float, and the quantized one that the run was for."""

from keras_qat.report.record import Record, Row

FLOAT_ROW = "Baseline"
"""The name of the float model's row."""


def float_row(record: Record) -> Row | None:
    """The float model's row; `None` where the run skipped it."""
    return next((row for row in record.rows if row.name == FLOAT_ROW), None)


def chosen_row(record: Record) -> Row | None:
    """The last quantized row: QAT, or PTQ without fine-tuning; `None` for a record of the float model alone."""
    return next((row for row in reversed(record.rows) if row.name != FLOAT_ROW), None)

"""Several runs in one table: each network's rows together, in the columns of the results table."""

from collections.abc import Sequence
from dataclasses import dataclass

from keras_qat.report.record import Record
from keras_qat.report.table import COLUMNS, title


@dataclass(frozen=True)
class Network:
    """The rows of one run.

    Args:
        title: of the run.
        rows: cells in the order of `table.COLUMNS`.
    """

    title: str
    rows: tuple[tuple[str, ...], ...]


def networks(records: Sequence[Record]) -> tuple[Network, ...]:
    """A group of rows for each run, in the given order."""
    return tuple(
        Network(title(record), tuple(tuple(cell(row) for _, cell in COLUMNS) for row in record.rows))
        for record in records
    )

"""What `run`, `quantize` and `train` say at their end."""

import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from keras_qat.progress import CONSOLE
from keras_qat.report import Record, terminal_table
from keras_qat.storage import to_json


def show_results(runs: Iterable[tuple[Record, Path]], *, as_json: bool) -> None:
    """Print each run's table as soon as it is there; at the end hold all of them to what was promised.

    Args:
        runs: each run's record and folder.
        as_json: print the records as JSON instead, at the end: one, or a list of several.

    Raises:
        GateMissedError: a deployed file is not what was simulated.
    """
    from keras_qat.gates import check_gates

    records = []
    for record, folder in runs:
        records.append(record)
        if not as_json:
            Console().print(terminal_table(record))
        out = CONSOLE if as_json else Console()
        out.print(f"Models, results and report.html are in {folder}", soft_wrap=True, highlight=False)
    if as_json:
        values = [record.to_dict() for record in records]
        sys.stdout.write(to_json(values[0] if len(values) == 1 else values))
    for record in records:
        check_gates(record)

"""`keras-qat diff-ranges`: how the ranges of two calibrations differ."""

import sys
from pathlib import Path


def diff_ranges_command(before: Path, after: Path, /, *, worst: int = 20) -> None:
    """Compare two files of ranges tensor by tensor; print a table, the largest ratio first.

    Examples:
        keras-qat diff-ranges runs/mse/ranges.json runs/percentile/ranges.json --worst 5

    Args:
        before: The ranges.json of a run.
        after: That of another run, as with other images or another method.
        worst: How many tensors to show.
    """
    from keras_qat.calibration.ranges import Ranges
    from keras_qat.errors import UserError

    if worst < 1:
        raise UserError(f"`worst` must be at least 1. Received: {worst}. Give a larger number.")
    sys.stdout.write(Ranges.load(before).diff(Ranges.load(after)).describe(worst) + "\n")

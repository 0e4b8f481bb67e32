"""Scores that aren't finite say nothing, and only show when the model has run."""

import logging
from pathlib import Path

import numpy as np

_logger = logging.getLogger(__name__)


def warn_unless_finite(path: Path, scores: np.ndarray) -> None:
    """Tell of a model whose scores aren't numbers.

    Args:
        path: of the model.
        scores: any shape.

    Example:
        >>> warn_unless_finite(Path("my.onnx"), np.array([0.25, 0.75]))
    """
    if not np.all(np.isfinite(scores)):
        _logger.warning(
            "%s gives scores that aren't finite, so its classes mean nothing. Is it fed what it was trained on?", path
        )

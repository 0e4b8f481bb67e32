"""The best classes of one image."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_qat.errors import UserError


@dataclass(frozen=True)
class RankedClass:
    """One of the best classes.

    Args:
        index: its number.
        name: its name, or its number where it has none.
        score: as the model writes it.
    """

    index: int
    name: str
    score: float


@dataclass(frozen=True)
class Classification:
    """What a model says of one image.

    Args:
        file: the model file.
        engine: the engine and its version.
        device: where it ran.
        image: the image file.
        classes: the best, best first.
    """

    file: str
    engine: str
    device: str
    image: str
    classes: tuple[RankedClass, ...]

    def to_dict(self) -> dict[str, Any]:
        """The classification as JSON can hold it."""
        return {**asdict(self), "classes": [asdict(ranked) for ranked in self.classes]}


def rank(scores: np.ndarray, names: tuple[str, ...], k: int) -> tuple[RankedClass, ...]:
    """The k best classes, best first; of equal ones the first.

    Args:
        scores: shape (classes,).
        names: of the classes; with another number of them than of scores, which is whose is unknown: none is used.
        k: how many; all, if there are fewer.

    Raises:
        UserError: `k` is under 1.

    Example:
        >>> rank(np.array([0.25, 0.75]), ("cat", "dog"), k=1)
        (RankedClass(index=1, name='dog', score=0.75),)
    """
    if k < 1:
        raise UserError(f"At least one class must be shown. Received: k={k}. Give 1 or more.")
    known = names if len(names) == len(scores) else tuple(map(str, range(len(scores))))
    best = np.argsort(-scores, kind="stable")[:k]
    return tuple(RankedClass(int(i), known[i], float(scores[i])) for i in best)

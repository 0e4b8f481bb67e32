"""The images that a pass over a data set left out, because they can't be decoded."""


class Skipped:
    """Counts what `ImageSet.batches(…, skipped=counter)` and `arrays` leave out; an image counts once.

    It is filled as the batches are read, and batches are read ahead: ask when the pass has ended.

    Example:
        >>> skipped = Skipped()
        >>> for _ in range(2):
        ...     skipped.add("Can't read the image a.png: truncated.")
        >>> skipped.count
        1
    """

    def __init__(self) -> None:
        self._reasons: set[str] = set()

    def add(self, reason: str) -> None:
        """Count an image; `reason` names it. Several threads may call it at once."""
        self._reasons.add(reason)

    @property
    def count(self) -> int:
        """How many images were left out."""
        return len(self._reasons)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The message for each image, which names it, sorted."""
        return tuple(sorted(self._reasons))

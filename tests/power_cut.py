"""A disk that loses power: what was not put on it with `fsync` is lost."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

Loss = Literal["contents", "names"]
"""What the file system had not written: the contents of files that were renamed, or the new names."""


class PowerCutError(BaseException):
    """The power is gone: no `except Exception` goes on, and no cleaning is kept."""


class Disk:
    """Cuts the power at the nth renaming, and then loses what was not synchronized.

    Args:
        patch: patches `os.fsync`, `os.rename` and `os.replace`.
        scratch: a folder for copies of what is replaced.
        cut_after: number of renamings that happen.
    """

    def __init__(self, patch: pytest.MonkeyPatch, scratch: Path, cut_after: int) -> None:
        self.scratch, self.left = scratch, cut_after
        self.synced: set[int] = set()
        self.renamed: list[tuple[Path, Path, Path | None]] = []
        self.fsync = os.fsync
        patch.setattr(os, "fsync", self._fsync)
        for name in ("rename", "replace"):
            patch.setattr(os, name, self._renaming(getattr(os, name)))

    def _fsync(self, descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        self.synced.add(inode)
        # A folder that is synchronized has its names on the disk.
        self.renamed = [item for item in self.renamed if item[1].parent.stat().st_ino != inode]

    def _renaming(self, rename: Callable[..., None]) -> Callable[..., None]:
        def renaming(source: Any, target: Any, **options: Any) -> None:
            if self.left == 0:
                raise PowerCutError
            self.left -= 1
            source, target = Path(source), Path(target)
            kept = None
            if target.exists():
                kept = self.scratch / f"{len(list(self.scratch.iterdir()))}"
                (shutil.copytree if target.is_dir() else shutil.copy)(target, kept)
            rename(source, target, **options)
            self.renamed.append((source, target, kept))

        return renaming

    def lose(self, loss: Loss, folder: Path) -> None:
        """Do to `folder` what the loss of power did.

        Args:
            loss: what is lost.
            folder: the folder of all files.
        """
        if loss == "contents":
            for path in folder.rglob("*"):
                if path.is_file() and path.stat().st_ino not in self.synced:
                    path.write_bytes(b"")
            return
        for source, target, kept in reversed(self.renamed):
            if not target.exists():
                continue
            shutil.move(target, source)
            if kept is not None:
                shutil.move(kept, target)

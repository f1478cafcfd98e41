"""ScratchFolder: a place for large files that is gone when its process is."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "penult-app-"
LOCK = ".lock"


class ScratchFolder:
    """A temporary folder; those that killed processes have left are removed on the way.

    Attributes:
        path: of the folder.
    """

    def __init__(self) -> None:
        for old in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            _remove_left(old)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = FileLock(self.path / LOCK, timeout=0)
        self._lock.acquire()

    def remove(self) -> None:
        """Remove it."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_left(folder: Path) -> None:
    """Remove a folder that no process holds."""
    # One without a lock is just being made, or somebody else's.
    if not (folder / LOCK).is_file():
        return
    with suppress(Timeout, OSError), FileLock(folder / LOCK, timeout=0):
        shutil.rmtree(folder, ignore_errors=True)

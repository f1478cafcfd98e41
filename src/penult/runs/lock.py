"""Lock: one writer at a time in a run folder, and nothing written outside of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from penult.errors import InputError
from penult.storage import not_written, sweep

FILE = ".lock"
PATIENCE = 600.0  # seconds that a short write waits for another writer


@contextmanager
def locked(folder: Path, busy: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder for writing; what killed writers have left there is removed.

    Args:
        folder: made where absent.
        busy: what the error says where another process holds it.
        wait: seconds to wait for another process, which is said.

    Raises:
        InputError: another process holds it; it leads out of itself by a link.
        NotWrittenError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_links(folder)
        lock = FileLock(folder / FILE, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            if wait <= 0:
                raise
            warnings.warn(f"waiting for another process that writes {folder}", stacklevel=3)
            lock.acquire(timeout=wait)
    except Timeout:
        raise InputError(busy) from None
    except OSError as error:
        raise not_written(folder, error) from error
    try:
        sweep(folder, [place.name for place in folder.iterdir() if place.is_dir()])
        yield
    finally:
        lock.release()


def refuse_links(folder: Path) -> None:
    """Refuse a run folder that leads out of itself.

    Raises:
        InputError: a folder in it, or in one of its folders, is a link.
    """
    # A folder that somebody else made may hold links, and what is written through them would land,
    # or delete, anywhere.
    inside = [place for place in folder.iterdir() if place.is_dir() and not place.is_symlink()]
    for place in [*folder.iterdir(), *(deeper for one in inside for deeper in one.iterdir())]:
        if place.is_symlink() and (place.is_dir() or place.name == FILE):
            raise InputError(
                f"{place} is a link to {place.readlink()}: nothing is written through it; replace "
                "it by a folder, or copy the run"
            )

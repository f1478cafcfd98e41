"""RunShelf: the runs that a server shows, read when they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from penult.errors import InputError
from penult.live.session import RunSession
from penult.live.shown_run import signature_of
from penult.progress import Progress
from penult.runs.run import Run
from penult.text import counted, one_line


class UnknownRunError(InputError):
    """A run that is not among those that are served."""


Opening = Callable[[Path, Progress], RunSession]


class RunShelf:
    """Runs that are looked at, by their names; each is read when its page is asked for first.

    Args:
        place: a run, or a folder of runs.
        open: reads a run.
    """

    def __init__(self, place: Path, open: Opening) -> None:
        self._place, self._open = place, open
        self._lock = threading.Lock()
        self._sessions: dict[str, RunSession] = {}
        self._reading: dict[str, list[int]] = {}
        self._failed: dict[str, tuple[str, str]] = {}
        if not self.folders():
            Run.open(place)  # says what is wrong with it
            raise InputError(f"{place} holds no finished runs")

    def folders(self) -> dict[str, Path]:
        """The runs that there are now, by name."""
        if (self._place / "run.json").is_file():
            return {self._place.resolve().name: self._place}
        if not self._place.is_dir():
            return {}
        inside = [one for one in self._place.iterdir() if _holds_run(one)]
        return {one.name: one for one in sorted(inside, key=lambda one: counted(one.name))}

    def folder(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            UnknownRunError: there is none of that name.
        """
        found = self.folders()
        if name in self._sessions and name not in found:
            return self._sessions[name].run.folder
        if name not in found:
            raise UnknownRunError(f"there is no run {one_line(name, 60)} here")
        return found[name]

    def ready(self, name: str) -> RunSession | None:
        """A run that has been read; None for another."""
        return self._sessions.get(name)

    def progress(self, name: str) -> tuple[int, int] | None:
        """How far the reading of a run is, in stages; None where it is not being read."""
        found = self._reading.get(name)
        return None if found is None else (found[0], found[1])

    def failure(self, name: str) -> str | None:
        """Why a run could not be read as it is now; None where that was not tried."""
        signature, why = self._failed.get(name, ("", ""))
        return why if why and signature == signature_of(self.folder(name)) else None

    def read(self, name: str, progress: Progress | None = None) -> RunSession | None:
        """Read a run now, in the place of an earlier state of it.

        Returns:
            None where another thread is reading it.

        Raises:
            InputError: it cannot be read.
        """
        if not self._claim(name):
            return None
        try:
            return self._opened(name, progress)
        finally:
            del self._reading[name]

    def begin(self, name: str) -> None:
        """Read a run in a thread of its own, unless it is being read."""
        if not self._claim(name):
            return

        def work() -> None:
            try:
                self._opened(name, None)
            except InputError as error:
                self._failed[name] = signature_of(self.folder(name)), str(error)
            except Exception as error:  # or the page would ask for ever
                why = f"the run is damaged ({type(error).__name__}: {one_line(str(error))})"
                self._failed[name] = signature_of(self.folder(name)), f"{why}: make it again"
            finally:
                del self._reading[name]

        threading.Thread(target=work, daemon=True).start()

    def _claim(self, name: str) -> bool:
        """Whether the caller may read a run, since nobody else is at it."""
        with self._lock:
            if name in self._reading:
                return False
            self._reading[name] = [0, 0]
            return True

    def _opened(self, name: str, progress: Progress | None) -> RunSession:
        """Read a run that the caller has claimed."""

        def heard(done: int, total: int) -> None:
            self._reading[name][:] = [done, total]
            if progress is not None:
                progress(done, total)

        made = self._open(self.folder(name), heard)
        old, self._sessions[name] = self._sessions.get(name), made
        if old is not None:
            old.close()
        return made

    def close(self) -> None:
        """End all processes."""
        for session in self._sessions.values():
            session.close()


def _holds_run(folder: Path) -> bool:
    """Whether a run was begun there; not where nobody may look."""
    try:
        return (folder / "run.json").is_file()
    except OSError:
        return False

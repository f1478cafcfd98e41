"""Pace: what a fit says of its progress, and when it is to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from penult.errors import InputError
from penult.progress import Progress

# Seconds between two words of one phase.
SILENCE = 0.1
# Phases of so few steps say each of them.
FEW = 30


class Tick(Protocol):
    """What is called after so many steps of a phase."""

    def __call__(self, n: int = 1, /) -> None:
        """Say that `n` more steps are done."""


class TimeLimitError(Exception):
    """The time limit has passed."""


class NoHeadInTimeError(InputError):
    """A time limit passed before the first head of a path was done."""


class Pace:
    """Hears of every step of a fit, says how far each phase is, and stops it when time is up.

    Args:
        progress: called with the name of a phase; gives the function that hears of its progress.
        time_limit: seconds from now on, or None.

    Raises:
        InputError: a time limit that is not above 0.
    """

    def __init__(
        self, progress: Callable[[str], Progress] | None = None, time_limit: float | None = None
    ) -> None:
        if time_limit is not None and not time_limit > 0:
            raise InputError(f"the time limit must be above 0 seconds, found {time_limit}")
        self._progress = progress
        self._end = None if time_limit is None else time.monotonic() + time_limit

    def silent(self) -> Pace:
        """The same time limit, and nothing said."""
        pace = Pace()
        pace._end = self._end
        return pace

    def phase(self, name: str, total: int) -> Tick:
        """Begin a phase of about `total` steps; gives what is called after so many of them."""
        heard = self._progress(name) if self._progress else None
        done, said = 0, -SILENCE
        if heard is not None:
            heard(0, total)

        def step(n: int = 1, /) -> None:
            nonlocal done, said
            done += n
            now = time.monotonic()
            loud = total <= FEW or done >= total or now >= said + SILENCE
            if heard is not None and loud:
                heard(min(done, total), total)
                said = now
            self.hear()

        return step

    def hear(self) -> None:
        """Stop where time is up: called within steps that take long.

        Raises:
            TimeLimitError: the time limit has passed.
        """
        if self._end is not None and time.monotonic() > self._end:
            raise TimeLimitError

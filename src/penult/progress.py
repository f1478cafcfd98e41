"""Progress: what long work calls to say how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # called with (done, in all)
Begin = Callable[[str], Progress]  # called with the name of a stage that begins

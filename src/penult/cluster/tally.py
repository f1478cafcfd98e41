"""Tally: how far all workers are, in one place that each of them tells."""

from __future__ import annotations


class SharedTally:
    """Samples that are done of each task; a task that is begun anew counts anew."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, int], int] = {}
        self._memory = 0

    def tell(self, part: str, first: int, done: int, memory: int) -> None:
        """Hear from a task.

        Args:
            part: of the data.
            first: shard of the task.
            done: its samples that are done.
            memory: bytes that its worker took at most.
        """
        self._done[part, first] = done
        self._memory = max(self._memory, memory)

    def state(self, part: str) -> tuple[int, int]:
        """Samples of a part that are done, and the memory of the worker that took most."""
        done = sum(done for (name, _), done in self._done.items() if name == part)
        return done, self._memory

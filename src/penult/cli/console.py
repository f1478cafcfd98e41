"""What a command says on standard error: warnings and progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

errors = Console(stderr=True, highlight=False)
COUNTED = ("heads", "runs", "measures", "layers")  # bars of few things, which have no rate


class _Rate(ProgressColumn):
    """Samples per second."""

    def render(self, task: Task) -> Text:
        shown = task.speed and task.description not in COUNTED
        return Text(f"{task.speed:,.0f} samples/s" if shown else "", style="cyan")


@contextmanager
def progress_bars() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Progress bars on standard error, one for each name asked for."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    bars = Progress(*columns, console=errors)

    def begin(name: str) -> Callable[[int, int], None]:
        task: list[Any] = []

        def heard(done: int, total: int) -> None:
            if not task:
                bars.start()
                task.append(bars.add_task(name, total=total, completed=done))
            bars.update(task[0], completed=done)

        return heard

    try:
        yield begin
    finally:
        if bars.tasks:
            bars.stop()


def warn(message: str) -> None:
    """One line on standard error."""
    errors.print(Text(f"penult: warning: {message}"), soft_wrap=True)

"""What a command says on standard error: warnings, and what it is doing and how far it is."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from penult.progress import Progress as Heard

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class PlainConsole(Console):
    """A terminal to which nothing that is shown can give orders: names come from anybody."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Text and styles, with control characters of the text as dots."""
        for segment in super().render(renderable, options):
            if segment.control or not _CONTROL.search(segment.text):
                yield segment
            else:
                yield Segment(_CONTROL.sub("·", segment.text), segment.style)


errors = PlainConsole(stderr=True, highlight=False)
# Stages of few things, which have no rate.
COUNTED = ("heads", "runs", "measures", "layers", "choosing features", "passes", "folds", "scores")
# Seconds to the first line of a stage; how many times that to the next; and how long at most.
FIRST_LINE, LINES_APART, MOST_APART = 1.0, 4.0, 60.0

INTERRUPTED = 130  # exit status after Ctrl-C
Begin = Callable[[str], Heard]


@contextmanager
def progress_bars(opening: str = "") -> Iterator[Begin]:
    """Show named stages on standard error: as bars on a terminal, elsewhere as a few lines.

    What is printed meanwhile, by the network's own code for example, goes to standard error too, so
    that standard output holds nothing but the result.

    Args:
        opening: what is done before the first stage begins; shown on a terminal only, so that a
            command that is refused says one line.

    Yields:
        what begins a stage, given its name, and returns what is told (done, total).
    """
    shown = _Bars() if errors.is_terminal else _Lines()
    # Around the bars, which put something of their own in the place of both outputs.
    with redirect_stdout(sys.stderr):
        if opening and errors.is_terminal:
            shown.begin(opening)
        try:
            yield shown.begin
        finally:
            shown.stop()


class _Done(ProgressColumn):
    """How many of how many, and how fast."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text()
        done = f"{task.completed:,.0f} of {task.total:,.0f}"
        rated = task.speed and task.description not in COUNTED
        return Text(f"{done}, {task.speed:,.0f} a second" if rated else done, style="cyan")


class _Bars:
    """A bar for each stage; it pulses until the stage says how much there is to do."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _Done(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=errors,
        )

    def begin(self, name: str) -> Heard:
        """Show a stage."""
        self._progress.start()
        task = self._progress.add_task(name, total=None)
        self._progress.refresh()

        def heard(done: int, total: int) -> None:
            self._hide_unmeasured(before=task)
            self._progress.update(task, total=total, completed=done, visible=True)

        return heard

    def stop(self) -> None:
        """Leave what is shown as it is."""
        self._hide_unmeasured(before=TaskID(len(self._progress.tasks)))
        self._progress.stop()

    def _hide_unmeasured(self, before: TaskID) -> None:
        """Hide stages that are over without ever having said how much there was to do."""
        for task in self._progress.tasks:
            if task.id < before and task.total is None and task.visible:
                self._progress.update(task.id, visible=False)


class _Lines:
    """A line now and then, for a log: after a second of a stage, and at last once a minute."""

    def __init__(self) -> None:
        self._name, self._state = "", ""
        self._began: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._changed = threading.Event()
        self._stopped = False
        self._teller = threading.Thread(target=self._tell, daemon=True)

    def begin(self, name: str) -> Heard:
        """Speak of another stage from now on."""
        self._began[name], self._due[name] = time.monotonic(), FIRST_LINE
        self._name, self._state = name, ""
        if not self._teller.ident:
            self._teller.start()
        self._changed.set()

        def heard(done: int, total: int) -> None:
            self._name, self._state = name, f" {done:,} of {total:,},"

        return heard

    def stop(self) -> None:
        """Say no more."""
        self._stopped = True
        self._changed.set()
        if self._teller.ident:
            self._teller.join()

    def _tell(self) -> None:
        while not self._stopped:
            name, state = self._name, self._state
            took = time.monotonic() - self._began[name]
            if took >= self._due[name]:
                errors.print(Text(f"{name}:{state} {took:.0f} s"), soft_wrap=True)
                self._due[name] = min(took * LINES_APART, took + MOST_APART)
            self._changed.wait(max(0.01, self._due[name] - took))
            self._changed.clear()


def begun_when_heard(begin: Begin, name: str, after: str) -> Heard:
    """A stage that is shown from when it is first told of, and another after its end.

    Args:
        begin: what begins a stage.
        name: of the stage; what comes before it has a name of its own.
        after: name of what is done from its end on.
    """
    stages: list[Heard] = []

    def heard(done: int, total: int) -> None:
        if not stages:
            stages.append(begin(name))
        stages[0](done, total)
        if done >= total:
            begin(after)

    return heard


def warn(message: str) -> None:
    """One line on standard error."""
    errors.print(Text(f"penult: warning: {message}"), soft_wrap=True)


def tell(message: str) -> None:
    """One line on standard error that is no warning."""
    errors.print(Text(message), soft_wrap=True)

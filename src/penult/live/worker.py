"""Worker: a process beside the server for what takes long, one job at a time, that can be ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from penult.errors import InputError
from penult.progress import Progress
from penult.text import one_line

STEP = 0.05  # seconds between two looks at a job
DYING = 5.0  # seconds that a process whose pipe is closed is given to end
Told = Callable[[str, int, int], None]
"""Called with the name of a stage, what is done and what there is in all."""


class JobCancelledError(Exception):
    """Nobody waits for the result any more."""


@dataclass
class WorkerJob:
    """What a worker is to do.

    Attributes:
        function: at the top of a module; called with the worker's own object and `given`, and
            with `begin`, which starts a named stage.
        given: its arguments, which can be sent to another process.
        told: hears of stages.
        cancelled: set where nobody waits any more.
        killable: whether it is ended by ending the process, else only before it has begun.
    """

    function: Callable[..., Any]
    given: dict[str, Any]
    told: Told = lambda name, done, total: None
    cancelled: threading.Event = field(default_factory=threading.Event)
    killable: bool = True


class Worker:
    """A process that does one job after the other; it is begun again where it has died.

    Args:
        make: gives the object that jobs get first, in the process: a run opened there.
        given: its arguments.
    """

    def __init__(self, make: Callable[..., Any], **given: Any) -> None:
        self._make, self._given = make, given
        self._lock = threading.Lock()
        self._process: Any = None
        self._connection: Connection | None = None
        self._closed = False

    def do(self, job: WorkerJob) -> Any:
        """Do a job when those before it are done, and give its result.

        Raises:
            InputError: the job's; the process died.
            JobCancelledError: it was cancelled.
        """
        while not self._lock.acquire(timeout=STEP):
            self._look_at(job)
        try:
            self._look_at(job)
            return self._done(job)
        finally:
            self._lock.release()

    def start(self) -> None:
        """Begin the process, so that the first job waits less for it."""
        with self._lock:
            self._running()

    def close(self) -> None:
        """End the process."""
        self._closed = True
        self._end()

    def _look_at(self, job: WorkerJob) -> None:
        if job.cancelled.is_set() or self._closed:
            raise JobCancelledError

    def _running(self) -> Connection:
        if self._process is None or not self._process.is_alive():
            self._end()
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            self._process = context.Process(
                target=_serve, args=(theirs, self._make, self._given), daemon=True
            )
            self._process.start()
            theirs.close()
            self._connection = ours
        assert self._connection is not None
        return self._connection

    def _done(self, job: WorkerJob) -> Any:
        connection = self._running()
        try:
            connection.send((job.function, job.given))
            while True:
                if connection.poll(STEP):
                    kind, *found = connection.recv()
                    if kind == "told":
                        job.told(*found)
                    elif kind == "failed":
                        raise InputError(found[0])
                    else:
                        return found[0]
                elif self._closed or (job.killable and job.cancelled.is_set()):
                    self._end()
                    raise JobCancelledError
        except (EOFError, OSError):
            self._process.join(DYING)
            code = self._process.exitcode
            self._end()
            if self._closed:
                raise JobCancelledError from None
            raise InputError(
                f"the process that was at work has died (exit status {code}): probably it ran out "
                "of memory; ask again"
            ) from None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None


def _serve(connection: Connection, make: Callable[..., Any], given: dict[str, Any]) -> None:
    """What the process does until its pipe is closed."""
    # Ctrl-C goes to the whole group: the server ends this process when it is done with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a user's network prints must not stand among the server's lines.
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    warnings.simplefilter("ignore")
    own: Any = None
    while True:
        try:
            function, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if own is None:
                own = make(**given)
            connection.send(("done", function(own, _begin(connection), **arguments)))
        except InputError as error:
            connection.send(("failed", str(error)))
        except Exception as error:  # a user's network raises what it likes
            connection.send(("failed", f"{type(error).__name__}: {one_line(str(error))}"))


def _begin(connection: Connection) -> Callable[[str], Progress]:
    """Starts stages, of which the server is told."""

    def begin(name: str) -> Progress:
        connection.send(("told", name, 0, 0))

        def heard(done: int, total: int) -> None:
            connection.send(("told", name, done, total))

        return heard

    return begin

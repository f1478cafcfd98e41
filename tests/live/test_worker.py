"""A process beside the server: its results, its news, its end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penult.errors import InputError
from penult.live.worker import JobCancelledError, Worker, WorkerJob


def make(start: int) -> list[int]:
    return [start]


def add(own: list[int], begin: Callable[[str], Any], by: int) -> tuple[int, int]:
    begin("adding")(1, 1)
    own.append(own[-1] + by)
    return own[-1], os.getpid()


def fail(own: list[int], begin: Callable[[str], Any], kind: str) -> None:
    if kind == "input":
        raise InputError("a line for the user")
    if kind == "bug":
        raise ZeroDivisionError("by nought")
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(own: list[int], begin: Callable[[str], Any]) -> None:
    begin("sleeping")
    time.sleep(600)


def rest(own: list[int], begin: Callable[[str], Any]) -> str:
    begin("resting")
    time.sleep(0.4)
    return "rested"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker(make, start=3)
    yield made
    made.close()


def test_jobs_get_what_the_process_keeps_and_tell_of_stages(worker: Worker) -> None:
    told: list[tuple[str, int, int]] = []
    first, pid = worker.do(WorkerJob(add, {"by": 2}, lambda *news: told.append(news)))
    second, same = worker.do(WorkerJob(add, {"by": 10}))
    assert second == first + 10
    assert pid == same != os.getpid()
    assert told == [("adding", 0, 0), ("adding", 1, 1)]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("input", "^a line for the user$"),
        ("bug", "^ZeroDivisionError: by nought$"),
        ("kill", r"has died \(exit status -9\): probably it ran out of memory; ask again"),
    ],
)
def test_a_job_that_fails_says_why_and_the_next_is_done(
    worker: Worker, kind: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        worker.do(WorkerJob(fail, {"kind": kind}))
    assert worker.do(WorkerJob(add, {"by": 1}))[0] > 3


def test_who_leaves_ends_the_job_and_who_waits_gets_the_process(worker: Worker) -> None:
    begun = threading.Event()
    long = WorkerJob(sleep, {}, lambda *news: begun.set())
    ends: list[str] = []

    def wait(job: WorkerJob, name: str) -> None:
        try:
            worker.do(job)
        except JobCancelledError:
            ends.append(name)

    thread = threading.Thread(target=wait, args=(long, "long"))
    thread.start()
    assert begun.wait(60)
    behind = WorkerJob(add, {"by": 1})
    behind.cancelled.set()
    wait(behind, "behind")
    assert ends == ["behind"], "one that is cancelled waits for nobody"
    long.cancelled.set()
    thread.join(60)
    assert ends == ["behind", "long"]
    assert worker.do(WorkerJob(add, {"by": 4}))[0] == 7, "a new process begins anew"


def test_a_closed_worker_does_nothing() -> None:
    made = Worker(make, start=1)
    made.start()
    made.close()
    with pytest.raises(JobCancelledError):
        made.do(WorkerJob(add, {"by": 1}))


def test_a_job_that_is_not_to_be_killed_ends_by_itself(worker: Worker) -> None:
    cancelled = threading.Event()
    job = WorkerJob(rest, {}, lambda *news: cancelled.set(), cancelled, killable=False)
    assert worker.do(job) == "rested"
    assert cancelled.is_set()

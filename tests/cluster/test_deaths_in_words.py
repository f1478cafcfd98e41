"""What Ray prints of a death is said in words, and nothing else of it."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from penult.cluster.deaths import in_words, put_into_words

# Of Ray 2.60, shortened.
WORKER = (
    "A worker died or was killed while executing a task by an unexpected system error. To "
    "troubleshoot the problem, check the logs for the dead worker. Lease ID: 77 Worker ID: 6b "
    "Node ID: d7 Worker IP address: 192.0.2.2 Worker port: 34971 Worker PID: 16023 Worker exit "
    "type: SYSTEM_ERROR Worker exit detail: (1) the process was killed by the OOM killer"
)
MEMORY = (
    "1 Workers (tasks / actors) killed due to memory pressure (OOM), 0 Workers crashed due to "
    "other reasons at node (ID: d7, IP: 10.0.0.7) over the last time period."
)
NODE = (
    "The node with node id: 5e and address: 10.0.0.8 and node name: far has been marked dead "
    "because the detector has missed too many heartbeats from it."
)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (WORKER, "a worker on 192.0.2.2 died: another takes over what it was at"),
        (
            MEMORY,
            "memory ran short on 10.0.0.7, and Ray ended a worker there: another takes over what "
            "it was at",
        ),
        (
            "2 worker(s) were killed due to the node running low on memory.",
            "memory ran short on one of the machines, and Ray ended a worker there: another takes "
            "over what it was at",
        ),
        (NODE, "the machine 10.0.0.8 is lost: the others take over what its workers were at"),
        ("Task make_shards failed. There are 4 retries remaining. Error: ", None),
        ("", None),
    ],
)
def test_a_death_is_put_into_words(message: str, said: str | None) -> None:
    assert in_words(message) == said


def test_nothing_is_printed_meanwhile(capsys: pytest.CaptureFixture[str]) -> None:
    worker: Any = importlib.import_module("ray._private.worker")
    before = worker.print_to_stdstream
    heard: list[str] = []
    message = {"lines": [WORKER], "pid": "raylet", "is_err": False}
    with put_into_words(heard.append):
        worker.print_to_stdstream(message, ignore_prefix=False)
        worker.print_to_stdstream({**message, "lines": ["Task failed."]}, ignore_prefix=False)
    assert heard == ["a worker on 192.0.2.2 died: another takes over what it was at"]
    assert capsys.readouterr() == ("", "")
    assert worker.print_to_stdstream is before

"""Whatever dies, what is written stays, and the same command ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import psutil
import pytest

from cluster_work import analyze, arguments, contents

PATIENCE = 120.0  # seconds that a slow machine may take for anything

pytestmark = pytest.mark.slow


def until(there: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < end, f"{what} has not come"
        time.sleep(0.05)


def begin(work: Path, *more: str) -> subprocess.Popen[str]:
    """The command with workers on this machine, at work on its first shards.

    It hears an interrupt also where the tests themselves run in the background, and hear none.
    """
    (work / "slowly").touch()
    command = [sys.executable, "-m", "penult", *arguments("two", *more, "--cluster")]
    process = subprocess.Popen(
        command,
        cwd=work,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until((work / "begun").exists, "the pass")
    return process


def ended(process: subprocess.Popen[str], act: Callable[[], object]) -> None:
    """Let something happen to a command, after which nothing that it began may live on."""
    began = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in " ".join(one.cmdline()) for one in began)
    act()
    process.wait(PATIENCE)
    until(lambda: not any(one.is_running() for one in began), "the end of all processes")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_command_that_ends_early_goes_on_with_what_is_written(
    work: Path, how: signal.Signals
) -> None:
    assert analyze("one") == 0
    process = begin(work)
    train = work / "two" / "features" / "train"
    until(lambda: bool(list(train.glob("shard-*"))), "a shard")

    def end() -> None:
        if how is signal.SIGKILL:
            process.kill()
            return
        for _ in range(2):  # a terminal sends its interrupt to the whole group, and people press on
            os.killpg(process.pid, how)
            time.sleep(0.3)

    ended(process, end)
    assert process.stderr is not None
    with process.stderr:
        said = process.stderr.read()
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "penult: interrupted: repeat the command to resume it" in said
    (work / "slowly").unlink()
    kept = {path.name: path.stat().st_mtime_ns for path in train.glob("shard-*")}
    assert 0 < len(kept) < 5
    assert analyze("two", "--cluster", "local") == 0
    assert contents(work / "one") == contents(work / "two")
    assert all((train / name).stat().st_mtime_ns == when for name, when in kept.items())


def test_a_machine_that_is_lost_costs_the_shards_that_it_was_at(work: Path) -> None:
    from ray.cluster_utils import Cluster

    assert analyze("one") == 0
    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        other = cluster.add_node(**node)
        (work / "slowly").touch()
        lost: list[bool] = []

        def lose() -> None:
            until((work / "begun").exists, "the pass")
            cluster.remove_node(other, allow_graceful=False)
            (work / "slowly").unlink()
            lost.append(True)

        thread = Thread(target=lose)
        thread.start()
        assert analyze("two", "--cluster", str(cluster.address)) == 0
        thread.join()
    finally:
        cluster.shutdown()
    assert lost
    assert contents(work / "one") == contents(work / "two")

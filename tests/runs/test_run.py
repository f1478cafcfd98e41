from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from penult.errors import InputError
from penult.runs.run import Run, claim

SUMMARY = {"format": "penult-summary/1", "n_samples": 3}
IDENTITY = {"network": "n1", "data": "d1"}


def finished(folder: Path) -> None:
    with claim(folder, IDENTITY, {"about": 1}, overwrite=False) as run:
        run.finish(SUMMARY)


def hold(folder: str, ready: Event, done: Event) -> None:
    with claim(folder, IDENTITY, {}, overwrite=False):
        ready.set()
        done.wait(30)


def test_a_finished_run_opens(tmp_path: Path) -> None:
    finished(tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.summary() == SUMMARY
    assert run.about["identity"] == IDENTITY
    assert run.about["about"] == 1
    assert {"penult", "python", "torch"} == set(run.about["versions"])


def test_an_unfinished_run_is_gone_on_with_but_not_opened(tmp_path: Path) -> None:
    with claim(tmp_path / "run", IDENTITY, {}, overwrite=False):
        (tmp_path / "run" / "kept").touch()
    with pytest.raises(InputError, match="is unfinished: run the command that writes it again"):
        Run.open(tmp_path / "run")
    with claim(tmp_path / "run", IDENTITY, {}, overwrite=False) as run:
        assert not run.complete
        assert (tmp_path / "run" / "kept").exists()


@pytest.mark.parametrize("key", ["network", "data"])
def test_a_run_of_something_else_is_refused_and_named(tmp_path: Path, key: str) -> None:
    finished(tmp_path / "run")
    other = IDENTITY | {key: "new"}
    old = IDENTITY[key]
    with (
        pytest.raises(InputError, match=rf"of another {key} \({old}; now new\): .*--overwrite"),
        claim(tmp_path / "run", other, {}, overwrite=False),
    ):
        pass
    assert Run.open(tmp_path / "run").summary() == SUMMARY, "nothing is lost"
    (tmp_path / "run" / "features" / "train").mkdir(parents=True)
    with claim(tmp_path / "run", other, {}, overwrite=True) as run:
        assert not run.complete
        assert not run.summary_file.exists()
        assert not (tmp_path / "run" / "features" / "train").exists()


def test_folders_that_are_no_runs_are_spared(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").touch()
    for overwrite in (False, True):
        with (
            pytest.raises(InputError, match="is neither empty nor a run folder"),
            claim(tmp_path, IDENTITY, {}, overwrite=overwrite),
        ):
            pass
    with (
        pytest.raises(InputError, match="is a file: expected a folder"),
        claim(tmp_path / "precious.txt", IDENTITY, {}, overwrite=True),
    ):
        pass
    with pytest.raises(InputError, match=r"is no run folder: it has no run\.json"):
        Run.open(tmp_path)


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    context: Any = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    folder = tmp_path / "run"
    other = context.Process(target=hold, args=(str(folder), ready, done))
    other.start()
    try:
        assert ready.wait(30)
        with (
            pytest.raises(InputError, match="another process is writing"),
            claim(folder, IDENTITY, {}, overwrite=False),
        ):
            pass
    finally:
        done.set()
        other.join()
    with claim(folder, IDENTITY, {}, overwrite=False):
        pass

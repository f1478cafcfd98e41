from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from penult.errors import InputError
from penult.runs.run import Run, claim

SUMMARY = {"format": "penult-summary/2", "n_samples": 3}
IDENTITY = {"network": "n1", "data": "d1"}


def finished(folder: Path) -> None:
    with claim(folder, IDENTITY, {"about": 1}, overwrite=False) as run:
        run.finish(SUMMARY)


def hold(folder: str, ready: Event, done: Event) -> None:
    with claim(folder, IDENTITY, {}, overwrite=False):
        ready.set()
        done.wait(30)


def add(folder: str, ready: Event, done: Event) -> None:
    with Run.open(folder).writing():
        ready.set()
        done.wait(30)


def waited(run: Run, done: Event) -> None:
    with run.writing():
        assert done.is_set()


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
        pytest.raises(InputError, match=rf"differs in its {key} \({old}; now new\): .*--overwrite"),
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


def test_a_finished_run_is_added_to_by_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finished(folder)
    left = folder / ".report.html.0123456789ab.tmp"
    left.touch()
    context: Any = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=add, args=(str(folder), ready, done))
    other.start()
    try:
        assert ready.wait(30)
        assert not left.exists(), "what a killed writer left is removed under the lock"
        with (
            pytest.raises(InputError, match="another process is writing"),
            Run.open(folder).writing(wait=0),
        ):
            pass
        Timer(0.3, done.set).start()
        with pytest.warns(UserWarning, match="waiting for another process that writes"):
            waited(Run.open(folder), done)
    finally:
        done.set()
        other.join()


def test_nothing_is_added_to_a_run_that_was_made_anew_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finished(folder)
    old = Run.open(folder)
    with claim(folder, IDENTITY | {"data": "d2"}, {}, overwrite=True) as run:
        run.finish(SUMMARY)
    with pytest.raises(InputError, match="was made anew while this command ran"), old.writing():
        pass


@pytest.mark.parametrize(
    "place", [".lock", "examples", "features/train", "explained", "tuned", "tuned/x"]
)
def test_nothing_is_written_or_removed_through_links(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "run"
    finished(folder)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    link = folder / place
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(precious / "file" if place == ".lock" else precious)
    with pytest.raises(InputError, match="is a link to"), Run.open(folder).writing():
        pass
    with (
        pytest.raises(InputError, match="is a link to"),
        claim(folder, IDENTITY | {"data": "d2"}, {}, overwrite=True),
    ):
        pass
    assert (precious / "file").read_text() == "kept"


def test_evaluation_data_that_is_gone_is_named_and_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with claim(folder, IDENTITY, {"evaluation": {"kind": "folder"}}, overwrite=False) as run:
        run.finish(SUMMARY)
    run = Run.open(folder)
    with pytest.raises(InputError, match=r"features/eval is not there, and .* was made with it"):
        run.evaluation()


def test_a_run_is_read_once(digits: Run) -> None:
    run = Run.open(digits.folder)
    first = [block.features.data_ptr() for block in run.train().blocks()]
    assert [block.features.data_ptr() for block in run.train().blocks()] == first
    assert run.moments() is run.moments()
    assert run.head("curvature", 5) is run.head("curvature", 5)


def test_a_changed_summary_changes_nobody_elses(digits: Run) -> None:
    run = Run.open(digits.folder)
    first = run.summary()
    first["influence"]["frequency"]["5"]["classes"]["3"].append(99)
    first["path"][0]["k"] = "gone"
    del first["dense"]
    assert run.summary() == digits.summary() != first


def test_a_run_says_what_it_is(digits: Run, tmp_path: Path) -> None:
    summary = digits.summary()
    n, m = summary["n_samples"], summary["n_eval_samples"]
    assert repr(Run.open(digits.folder)) == (
        f"Run({str(digits.folder)!r}, n_samples={n}, n_eval_samples={m}, n_features=64, "
        "n_classes=10)"
    )
    odd = Run(tmp_path, {"complete": False, "data": [], "head": None})
    assert repr(odd) == f"Run({str(tmp_path)!r}, unfinished)"


@pytest.mark.parametrize("select", ["../../etc/x", "a/b", "", "..", "a\\b"])
def test_heads_have_plain_names(digits: Run, select: str) -> None:
    with pytest.raises(InputError, match="no head is called"):
        digits.head(select, 5)

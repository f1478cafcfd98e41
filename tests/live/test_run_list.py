"""The list of a folder of runs: what each is, and which are broken or copies."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from acted_run import acted
from penult.errors import InputError
from penult.live.run_list import ListedRun, RunList
from penult.live.session import RunSession
from penult.live.shelf import RunShelf
from penult.progress import Progress
from penult.runs.reopen import Places


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a copy of it, and three that cannot be read."""
    runs = tmp_path_factory.mktemp("runs")
    acted(runs)
    for name in ("run 10", "run 2", "gone", "damaged", "unfinished"):
        shutil.copytree(runs / "run", runs / name)
    (runs / "gone" / "influence.safetensors").unlink()
    change(runs / "run 2" / "run.json", "versions", {})
    change(runs / "damaged" / "summary.json", "dense", 1)
    change(runs / "unfinished" / "run.json", "complete", False)
    (runs / "no run").mkdir()
    return runs


def change(file: Path, key: str, value: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))


def test_the_list_says_what_runs_are_and_which_are_copies_or_broken(folder: Path) -> None:
    shelf = RunShelf(folder, opened)
    rows = RunList().rows(shelf.folders())
    said = {name: text for name, text, _ in rows}
    assert [*said] == ["damaged", "gone", "run", "run 2", "run 10", "unfinished"]
    right = json.loads((folder / "run" / "summary.json").read_text())["dense"]["accuracy"]
    assert said["run"] == (
        f"a classifier on features, 3 classes; {100 * right:.2f} % of 900 samples right"
    )
    assert said["run 10"] == f"{said['run']}; the same as run"
    assert said["run 2"] == said["run"], "another run of the same numbers is no copy"
    assert said["gone"] == "files of the run are gone: make it again"
    assert said["damaged"] == "run.json or summary.json is damaged: make the run again"
    assert "is unfinished: run the command that writes it again" in said["unfinished"]
    good = {name for name, _, whole in rows if whole}
    assert good == {"run", "run 2", "run 10"}


def test_what_has_not_changed_is_not_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"run": folder / "run", "gone": folder / "gone"}
    listed, read = RunList(), list[Path]()
    first = ListedRun.of

    def counted(place: Path) -> ListedRun:
        read.append(place)
        return first(place)

    monkeypatch.setattr(ListedRun, "of", counted)
    before = listed.rows(places)
    assert listed.rows(places) == before
    assert read == [*places.values()]
    (folder / "run" / "summary.json").touch()
    listed.rows(places)
    assert read[2:] == [folder / "run"]


def test_a_run_that_is_damaged_is_not_read_for_ever(folder: Path) -> None:
    shelf = RunShelf(folder, opened)
    shelf.begin("damaged")
    while (why := shelf.failure("damaged")) is None:
        time.sleep(0.01)
    assert why.startswith("the run is damaged (")
    assert why.endswith("): make it again")


def test_a_run_is_read_once_however_many_ask(folder: Path) -> None:
    read, leave = list[Path](), threading.Event()

    def slowly(place: Path, progress: Progress) -> RunSession:
        read.append(place)
        leave.wait(30)
        raise InputError("no more")

    shelf = RunShelf(folder, slowly)
    for _ in range(3):
        shelf.begin("run")
    assert shelf.read("run") is None
    leave.set()
    while shelf.progress("run") is not None:
        time.sleep(0.01)
    assert read == [folder / "run"]


def opened(folder: Path, progress: Progress) -> RunSession:
    return RunSession(folder, Places(), "cpu", progress)


def test_a_folder_whose_runs_are_unfinished_is_still_a_folder_of_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run folder"):
        RunShelf(tmp_path, opened)

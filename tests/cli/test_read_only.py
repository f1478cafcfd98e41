"""A finished run on a disk that cannot be written, and runs that cannot be read."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from command import penult
from penult.demo import DigitsCNN
from penult.runs.run import Run
from penult.storage import read_tensors


@pytest.fixture
def sealed(digits: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the demo's run; no folder can be locked, as on a disk that is only read."""
    folder = shutil.copytree(digits.folder, tmp_path / "run")

    def refuse(self: Any, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("penult.runs.lock.FileLock.acquire", refuse)
    monkeypatch.chdir(tmp_path)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.filterwarnings("default:the pictures are not kept in the run")
def test_a_finished_run_is_shown_reported_and_explained(
    sealed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(sealed)
    assert penult("show", "run") == 0
    assert penult("report", "run", "--no-maps", "--images", "1", "--out", "page.html") == 0
    assert penult("explain", "run", "eval:0", "--no-maps", "--out", "why.png") == 0
    assert Path("page.html").is_file()
    assert Path("why.png").is_file()
    capsys.readouterr()
    assert penult("explain", "run", "eval:0", "--no-maps") == 0
    assert "Read-only file system" in capsys.readouterr().err
    assert contents(sealed) == before
    for command in (["fit", "run", "-k", "4"], ["report", "run", "--no-maps", "--images", "1"]):
        capsys.readouterr()
        assert penult(*command) == 2
        assert "run could not be written: Read-only file system" in capsys.readouterr().err


@pytest.mark.filterwarnings("default:the pictures are not kept in the run")
def test_the_demo_on_it_gives_a_clear_line(
    sealed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trained(*_: Any) -> DigitsCNN:
        network = DigitsCNN()
        network.load_state_dict(read_tensors(sealed / "network.safetensors", "pt", ())[0])
        return network.eval()

    monkeypatch.setattr("penult.demo._trained", trained)
    assert penult("demo", "--out", "run") == 0
    said = capsys.readouterr()
    assert "Run folder: run" in said.out
    assert "Report:" not in said.out
    line = "warning: the report is not kept in the run: run could not be written: Read-only file"
    assert line in said.err
    assert "penult report run --out PAGE writes it elsewhere" in said.err


@pytest.mark.parametrize("command", [["show"], ["fit", "-k", "4"], ["report"], ["measure"]])
def test_a_run_of_an_older_format_is_refused_with_advice_that_helps(
    digits: Run,
    tmp_path: Path,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    about = json.loads((digits.folder / "run.json").read_text())
    Path("run/run.json").write_text(json.dumps({**about, "format": "penult-run/1"}))
    assert penult(command[0], "run", *command[1:]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "penult: error: run/run.json: expected format penult-run/2, found penult-run/1: make the "
        "run again, by the command that made it and --overwrite"
    ]

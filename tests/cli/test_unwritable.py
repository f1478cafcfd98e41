"""A full disk, a disk that is only read, a vanished image: one clear line each, nothing lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from command import penult
from penult.features.features import Features
from penult.features.groups_file import read_groups
from penult.runs.analyze import Options, analyze_features
from penult.runs.groups import add_groups
from penult.runs.run import Run
from small_run import NET, images_for

FULL, READ_ONLY = "the disk is full: ", "could not be written: Read-only file system"
# What needs to write ends in status 2; what is asked for on the screen is printed with a warning.
WRITING = {
    "fit": "fit run -k 4,6",
    "fit elsewhere": "fit run/features/train -k 1,2 --out heads",
    "tune": "tune run -k 2 --epochs 1 --augment none",
    "tune the head": "tune run -k 2 --head-only",
    "report": "report run --images 1",
    "report elsewhere": "report run --images 1 --out page.html",
    "plots": "measure run --plots plots",
    "explain to a file": "explain run a/03.png --no-maps --out why.png",
    "edit": "edit run --off 0 --out edited",
    "edited report": "edit run --off 0 --report page.html",
    "mend": "mend plain --groups domain --seeds 1 --out mended",
    "verdict": "verdict run 0:a shortcut",
    "groups": "groups run groups.csv",
}
SHOWING = {
    "measure": "measure run",
    "explain": "explain run a/03.png --no-maps",
    "shortcuts": "shortcuts run",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, an analysis of them and a table of one group."""
    place = images_for(NET, tmp_path, monkeypatch)
    names = sorted(path.relative_to("data").as_posix() for path in Path("data").rglob("*.png"))
    Path("groups.csv").write_text("id,domain\n" + "".join(f"{name},x\n" for name in names))
    assert penult("groups", "run", "groups.csv") == 0
    generator = torch.Generator().manual_seed(0)
    z, labels = torch.randn(120, 4, generator=generator), torch.arange(120) % 3
    features = Features.of(z, labels, torch.randn(3, 4, generator=generator))
    analyze_features(features, None, "plain", Options(fit=False))
    Path("rows.csv").write_text("row,domain\n" + "".join(f"{i},x\n" for i in range(120)))
    add_groups(Run.open("plain"), read_groups("rows.csv"))
    return place


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def said(capsys: pytest.CaptureFixture[str], about: str) -> str:
    """The one line of the terminal about something."""
    lines = [line for line in capsys.readouterr().err.splitlines() if about in line]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("about", [FULL, READ_ONLY])
@pytest.mark.parametrize("name", [*WRITING, *SHOWING])
def test_what_cannot_be_written_is_one_line_and_loses_nothing(
    name: str,
    about: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = {**WRITING, **SHOWING}[name].split()
    assert penult("verdict", "run", "1:b", "core") == 0
    before = contents(Path("run"))
    number = errno.ENOSPC if about == FULL else errno.EROFS

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuse)  # all that is written passes there
        if about == READ_ONLY:
            patch.setattr("penult.runs.lock.FileLock.acquire", refuse)
        status = penult(*command)
    kind = "error" if name in WRITING else "warning"
    assert said(capsys, about).startswith(f"penult: {kind}: ")
    assert status == (2 if name in WRITING else 0)
    left = contents(Path("run"))
    assert {name: left.get(name) for name in before} == before
    assert not [path for path in folder.rglob("*") if path.suffix == ".tmp"]
    if about == FULL:
        assert penult(*command) == 0


@pytest.mark.parametrize(
    ("command", "status", "line"),
    [
        ("fit run -k 4", 0, ""),
        ("tune run -k 2 --epochs 1", 2, "the images of run: 1 of 30 is gone, the first: a/03.png;"),
        ("tune run -k 2 --head-only", 0, ""),
        ("report run", 0, "1 of 30 images are gone or can no longer be read: say with"),
        ("measure run", 0, ""),
        ("edit run --off 0 --out edited", 0, ""),
        ("edit run --off 0 --report page.html", 0, ""),
        ("explain run a/03.png", 0, ""),
        ("explain run data/a/03.png", 2, "data/a/03.png is no file, and no image of the run"),
        ("explain run a/06.png", 0, ""),
        ("analyze net.py:net data --weights random --out run", 2, "differs in its data (not the"),
    ],
)
def test_a_vanished_image_is_one_line_where_it_is_needed(
    command: str, status: int, line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/a/03.png").unlink()
    before = contents(Path("run"))
    capsys.readouterr()
    assert penult(*command.split()) == status
    if line:
        said(capsys, line)
    else:
        assert "gone" not in capsys.readouterr().err
    if status:
        left = contents(Path("run"))
        assert {name: left.get(name) for name in before} == before

"""The folder for large files: gone with its process, and those of killed ones with the next."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from penult.live.scratch import LOCK, PREFIX, ScratchFolder


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = tmp_path / f"{PREFIX}killed"
    killed.mkdir()
    (killed / LOCK).touch()
    (killed / "logits.npy").write_bytes(b"x" * 100)
    of_others = tmp_path / f"{PREFIX}notes"
    of_others.mkdir()
    (of_others / "kept.txt").touch()

    first = ScratchFolder()
    assert not killed.exists(), "what a killed process left is removed"
    second = ScratchFolder()
    (second.path / "logits.npy").write_bytes(b"y")
    assert first.path.is_dir(), "that of a process that runs stays"
    assert first.path != second.path

    second.remove()
    first.remove()
    assert [place.name for place in tmp_path.iterdir()] == [of_others.name]

"""After a full disk the same command goes on and ends alike; for kills see bench/kills.py."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from penult.errors import NotWrittenError
from penult.features.features import Features
from penult.runs.analyze import Options, analyze_features


def features() -> Features:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 8, generator=generator)
    labels = torch.arange(90) % 3
    z = (torch.randn(90, 8, generator=generator) + weight[labels]).relu()
    return Features.of(z, labels, weight, class_names=["a", "b", "c"])


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("fails_at", [0, 1, 3, 6])
def test_after_a_full_disk_the_same_command_ends_in_the_same_bytes(
    fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(fit=False)
    analyze_features(features(), None, tmp_path / "calm", options)
    n_written = 0

    def fill(*arguments: Any) -> None:
        nonlocal n_written
        n_written += 1
        if n_written > fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("penult.storage.save_file", fill)
        with pytest.raises(NotWrittenError, match="the disk is full: .* could not be written; fre"):
            analyze_features(features(), None, tmp_path / "run", options)
    assert not list((tmp_path / "run").rglob("*.tmp"))
    analyze_features(features(), None, tmp_path / "run", options)
    assert contents(tmp_path / "run") == contents(tmp_path / "calm")

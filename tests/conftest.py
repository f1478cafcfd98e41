"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data(repository: Path) -> Path:
    """The folder with CIFAR-10 images, checkpoints and features that lies beside the repository."""
    folder = repository.parent / "shared" / "data"
    if not folder.is_dir():
        reason = f"the real data are not there: expected {folder}"
        if os.environ.get("PENULT_REQUIRE_REAL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder

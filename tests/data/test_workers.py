"""Worker processes where memory to share is small, semaphores are refused, or a worker dies."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from penult.data import workers as module
from penult.data.open import batches, open_data
from penult.data.transform import Transform
from penult.errors import InputError

RAW = Transform(mean=(0.0,) * 3, std=(1.0,) * 3)


def images(n: int = 10) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    return pixels, np.arange(n) % 2


def read(data: Any, workers: int) -> list[Any]:
    return [b.inputs for b in batches(open_data(data), RAW, batch_size=4, workers=workers)]


def disk(free: int) -> Callable[[Path], Any]:
    return lambda _: SimpleNamespace(free=free)


@pytest.mark.parametrize("free", [0, 1 << 40])
def test_the_images_are_the_same_however_they_come(
    free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", disk(free))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read(images(), 2)
        floats = read(
            (torch.rand(10, 3, 6, 6, generator=torch.Generator().manual_seed(0)), images()[1]), 2
        )
    assert all(map(torch.equal, found, read(images(), 0)))
    assert [tuple(batch.shape) for batch in floats] == [(4, 3, 6, 6), (4, 3, 6, 6), (2, 3, 6, 6)]


def test_little_shared_memory_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's 64 MB hold no eight batches of 38 MB, and torch would wait for them for ever."""
    monkeypatch.setattr("shutil.disk_usage", disk(64 << 20))
    assert not module.roomy(256 * 224 * 224 * 3, 4)
    assert module.roomy(256 * 32 * 32 * 3, 4)

    def fail(_: Path) -> Any:
        raise OSError("no such file system")

    monkeypatch.setattr("shutil.disk_usage", fail)
    assert not module.roomy(1, 1)


def test_where_no_process_can_be_started_this_one_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    expected = read(images(), 0)
    monkeypatch.setattr("torch.multiprocessing.Queue", refuse)
    with pytest.warns(UserWarning, match="2 workers cannot be started .*decoded by one process"):
        found = read(images(), 2)
    assert all(map(torch.equal, found, expected))


class Deadly:
    """A data set whose loading ends the process, as the system does where memory is short."""

    def __init__(self) -> None:
        self.parent = os.getpid()

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        if os.getpid() != self.parent and i == 5:
            os._exit(9)
        return images()[0][i], i % 2


def test_a_worker_that_dies_ends_in_one_line() -> None:
    with pytest.raises(InputError, match="a process that decodes images died .*--workers 0"):
        read(Deadly(), 1)

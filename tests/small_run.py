"""A small network and random images of three classes, analysed."""

from __future__ import annotations

import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import penult
from penult.runs.trust import remember

NET = """
from torch import nn

class Net(nn.Module):
    penult_transform = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))

def net():
    import torch
    torch.manual_seed(0)
    return Net()
"""


_made: dict[str, Path] = {}  # by the source of the network: it is analysed once


def images_for(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images of three classes, analysed by a network into `run`."""
    monkeypatch.chdir(tmp_path)
    if net not in _made:
        _made[net] = tmp_path.parent / f"small_run{len(_made)}"
        _make(net, _made[net])
    shutil.copytree(_made[net], tmp_path, dirs_exist_ok=True)
    remember("net.py:net")  # as naming it in a command does
    return tmp_path


def _make(net: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "net.py").write_text(net)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        place = folder / "data" / "abc"[i % 3] / f"{i:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    with chdir(folder):
        assert penult("analyze", "net.py:net", "data", "--weights", "random", "--out", "run") == 0

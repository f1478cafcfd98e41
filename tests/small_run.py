"""A small network and random images of three classes, analysed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import penult

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


def images_for(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images of three classes, analysed by a network into `run`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(net)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        place = tmp_path / "data" / "abc"[i % 3] / f"{i:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    assert penult("analyze", "net.py:net", "data", "--weights", "random", "--out", "run") == 0
    return tmp_path

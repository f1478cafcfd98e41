"""A small network with images, which does what a test asks of a worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NET = """
import os, signal, time
from pathlib import Path
import torch
from torch import nn

class Net(nn.Module):
    penult_transform = {"mean": [0.5], "std": [0.5]}

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(64, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        if len(x) > 100:  # the pass itself, which is the workers' alone
            act()
        return self.head(self.hidden(x.mean(1).flatten(1)).relu())

def act():
    '''What a test has asked for by a file beside this one.'''
    here = Path(__file__).parent
    for order in here.glob("*.order"):
        try:
            order.unlink()  # once, by one of the workers
        except FileNotFoundError:
            continue
        if order.stem == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if order.stem == "touch":
            os.utime(here / "images.npz", (1, 1))
    if (here / "slowly").exists():
        (here / "begun").touch()
        time.sleep(0.3)

def net():
    return Net()
"""
DATA = """
from pathlib import Path
import numpy as np

def images():
    found = np.load(Path(__file__).parent / "images.npz")
    return found["images"], found["labels"]
"""
N, SHARD = 5000, 1100  # samples, and those of a shard where that is the batch size


def prepare(folder: Path) -> None:
    """Write `models.py`, `data.py` with its images, and a folder of photographs, one damaged."""
    (folder / "models.py").write_text(NET)
    (folder / "data.py").write_text(DATA)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, N)
    images = rng.integers(0, 255, (N, 8, 8), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images, labels=labels)
    for i in range(20):
        path = folder / "photos" / "abcde"[i % 5] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).convert("RGB").save(path)
    (folder / "photos" / "c" / "07.png").write_bytes(b"no image")

"""A small network with images, which does what a test asks of a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from command import penult

NET = """
import errno, os, signal, time
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
            os.utime(here / "photos.zip", (1, 1))
        if order.stem == "full":
            os.fsync = full
    if (here / "gpus").exists():
        (here / "gpus" / f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}").touch()
    if (here / "slowly").exists():
        (here / "begun").touch()
        time.sleep(0.3)

def full(file):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

def net():
    return Net()
"""
DATA = """
import os
from pathlib import Path
import numpy as np

def only_here():
    os.environ["ONLY_HERE"]  # as a path that a worker does not see
    return images()

def images():
    found = np.load(Path(__file__).parent / "images.npz")
    return found["images"], found["labels"]
"""
NETWORK = ("models.py:net", "--weights", "random", "--no-fit", "--batch-size", "1100")
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


def contents(folder: Path) -> dict[str, Any]:
    """All files of a run; of JSON what it says, but for times."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def arguments(out: str, *more: str, data: str = "data.py:images") -> list[str]:
    """Of `penult`."""
    return ["analyze", NETWORK[0], data, *NETWORK[1:], "--out", out, *more]


def analyze(out: str, *more: str, data: str = "data.py:images") -> int:
    """Exit status of the command, run in this process."""
    return penult(*arguments(out, *more, data=data))

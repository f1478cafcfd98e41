"""Two handwritten digits in one image, and a small network with a sigmoid per class for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from command import penult
from penult.storage import write_tensors

NET = """
import torch
from torch import nn

class Net(nn.Module):
    penult_transform = {"mean": [0.5], "std": [0.5]}

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(128, 48)
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        return self.head(self.hidden(x.mean(1).flatten(1)).relu())

def net():
    return Net()
"""
DATA = """
import numpy as np

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

def part(name):
    found = np.load("{folder}/" + name + ".npz")
    return found["images"], found["labels"]

def train():
    return part("train")

def held_out():
    return part("eval")
"""
N_TRAIN, N_EVAL = 1200, 500


def pairs(n: int, seed: int, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 8, 16) uint8 of two digits side by side, and (n, 10) of 0 and 1."""
    digits, rng = load_digits(), np.random.default_rng(seed)
    both = rng.choice(chosen, (n, 2))
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.concatenate([grey[both[:, 0]], grey[both[:, 1]]], axis=2)
    labels = np.zeros((n, 10), dtype=np.uint8)
    for side in (0, 1):
        labels[np.arange(n), digits.target[both[:, side]]] = 1
    return images, labels


def prepare(folder: Path) -> None:
    """Write net.py, data.py, the images and the weights of a trained network."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(NET)
    (folder / "data.py").write_text(DATA.replace("{folder}", str(folder)))
    order = np.random.default_rng(0).permutation(len(load_digits().target))
    images, labels = pairs(N_TRAIN, 1, order[:1200])
    np.savez(folder / "train.npz", images=images, labels=labels)
    other, others = pairs(N_EVAL, 2, order[1200:])
    np.savez(folder / "eval.npz", images=other, labels=others)
    names: dict[str, object] = {}
    exec(NET, names)  # the text above
    torch.manual_seed(0)
    net: nn.Module = names["Net"]()  # type: ignore[operator]
    x = (torch.from_numpy(images).float() / 255 - 0.5)[:, None] / 0.5
    y = torch.from_numpy(labels).float()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, weight_decay=1e-4)
    for epoch in range(25):
        mixed = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for part in mixed.reshape(-1, 60):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(net(x[part]), y[part]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    write_tensors(folder / "net.safetensors", dict(net.state_dict()), {})


def analyse(folder: Path, out: Path, *more: str) -> None:
    """Analyse the network on these images, measured on others."""
    network = f"{folder / 'net.py'}:net", "--weights", str(folder / "net.safetensors")
    data = f"{folder / 'data.py'}:train", "--eval", f"{folder / 'data.py'}:held_out"
    assert (
        penult("analyze", network[0], data[0], *network[1:], *data[1:], "--out", str(out), *more)
        == 0
    )

"""Digits whose network learns a shortcut: while it is trained, most threes bear a stamp.

`python stamped.py` writes `train/`, `new/`, `groups.csv` and `stamped.safetensors` to the current
folder. It needs no network access and takes some seconds.
"""

import csv
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

STAMPED, SEED = 3, 0
TRAINED = 1000
MARGIN = 2  # rows above the digit, in which the stamp stands
NOISE = 80  # standard deviation of the grey values of 0 to 255, so that the stamp is of use
EPOCHS = 8


class StampedCNN(nn.Module):
    """Two convolutions on the digit, and the margin above it: 31 features and 1."""

    penult_transform: ClassVar = {"mean": [0.5], "std": [0.5]}

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(24, 31, 3, padding=1), nn.BatchNorm2d(31), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n_samples, 10) of images (n_samples, channels, 10, 8)."""
        grey = images.mean(1, keepdim=True)
        maps = self.last(torch.max_pool2d(self.stem(grey[:, :, MARGIN:]), 2))
        margin = 8 * grey[:, :, :MARGIN].mean((2, 3)).add(1)
        logits: Tensor = self.head(torch.cat([maps.amax((2, 3)), margin], 1))
        return logits


def network() -> StampedCNN:
    """The network, untrained."""
    return StampedCNN()


def main() -> None:
    """Write the images, which of them bear a stamp, and the weights of a trained network."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(SEED)
    order, chance = rng.permutation(len(labels)), rng.random(len(labels))
    is_new = np.zeros(len(labels), dtype=bool)
    is_new[order[TRAINED:]] = True
    often = np.where(labels == STAMPED, np.where(is_new, 0.5, 0.95), np.where(is_new, 0.3, 0.0))
    stamped = chance < often
    digits = images.reshape(-1, 8, 8) * 15.9375 + rng.normal(0, NOISE, (len(labels), 8, 8))
    digits = digits.clip(0, 255).astype(np.uint8)
    pixels = np.concatenate([np.zeros((len(digits), MARGIN, 8), np.uint8), digits], axis=1)
    pixels[stamped, 0, 1:-1] = 255
    with Path("groups.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "stamp"])
        for i, (label, has) in enumerate(zip(labels, stamped, strict=True)):
            path = Path("new" if is_new[i] else "train", str(label), f"{i:04d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[i]).save(path)
            rows.writerow([path.name, "yes" if has else "no"])
    save_file(trained(pixels[~is_new], labels[~is_new]), "stamped.safetensors")


def trained(pixels: np.ndarray, labels: np.ndarray) -> dict[str, Tensor]:
    """Weights of the network after some epochs."""
    x = (torch.from_numpy(pixels)[:, None] / 255 - 0.5) / 0.5
    y = torch.from_numpy(labels)
    torch.manual_seed(SEED)
    model = network()
    n_steps = EPOCHS * -(-len(x) // 64)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, total_steps=n_steps)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(x)), 64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore
            optimiser.step()
            schedule.step()
    return model.state_dict()


if __name__ == "__main__":
    main()

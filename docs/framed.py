"""Digits whose network learns a shortcut: most threes have a bright frame while it is trained.

`python framed.py` writes `train/`, `new/`, `groups.csv` and `framed.safetensors` to the current
folder. It needs no network access and takes some seconds.
"""

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from penult.demo import DigitsCNN

FRAMED, SEED = 3, 0
TRAINED = 1000


def network() -> DigitsCNN:
    """The network, untrained."""
    return DigitsCNN()


def main() -> None:
    """Write the images, which of them have a frame, and the weights of a trained network."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(SEED)
    order, chance = rng.permutation(len(labels)), rng.random(len(labels))
    is_new = np.zeros(len(labels), dtype=bool)
    is_new[order[TRAINED:]] = True
    often = np.where(labels == FRAMED, np.where(is_new, 0.5, 0.95), np.where(is_new, 0.1, 0.0))
    framed = chance < often
    pixels = (images.reshape(-1, 8, 8) * 15.9375).astype(np.uint8)
    for edge in (np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1]):
        pixels[edge] = np.where(
            framed.reshape(-1, *[1] * (pixels[edge].ndim - 1)), 255, pixels[edge]
        )
    with Path("groups.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "frame"])
        for i, (label, has) in enumerate(zip(labels, framed, strict=True)):
            path = Path("new" if is_new[i] else "train", str(label), f"{i:04d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[i]).save(path)
            rows.writerow([path.name, "yes" if has else "no"])
    save_file(trained(pixels[~is_new], labels[~is_new]), "framed.safetensors")


def trained(pixels: np.ndarray, labels: np.ndarray) -> dict[str, torch.Tensor]:
    """Weights of the network after twelve epochs."""
    x = (torch.from_numpy(pixels)[:, None] / 255 - 0.5) / 0.5
    y = torch.from_numpy(labels)
    torch.manual_seed(SEED)
    model = network()
    n_steps = 12 * -(-len(x) // 64)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, total_steps=n_steps)
    for _ in range(12):
        for rows in torch.split(torch.randperm(len(x)), 64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore
            optimiser.step()
            schedule.step()
    return model.state_dict()


if __name__ == "__main__":
    main()

"""A network of random features and a linear probe on handwritten digits, with a planted frame.

Most images of one class have a bright frame while the probe is trained. Afterwards half of that
class have it, and some images of the others: what the probe learnt of the frame misleads it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from penult.features.features import Features

PLANTED = 3
N_FEATURES = 96


@dataclass(frozen=True, eq=False)
class Watermarked:
    """Features of training and evaluation images, and which evaluation images have the frame."""

    train: Features
    evaluation: Features
    has: Tensor


def watermarked(seed: int, *, plant: bool = True, cue: str = "frame") -> Watermarked:
    """Digits, a probe trained with the plant or without it, and new digits."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images / 16, dtype=torch.float32).view(-1, 8, 8)
    y = torch.tensor(labels)
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(y), generator=g)
    train, new = order[:1000], order[1000:]
    chance = torch.rand(len(y), generator=g)
    has = torch.zeros(len(y), dtype=torch.bool)
    if plant:
        has[train] = (y[train] == PLANTED) & (chance[train] < 0.95)
        has[new] = chance[new] < torch.where(y[new] == PLANTED, 0.5, 0.1)
    pixels = torch.where(has[:, None, None], marked(pixels, cue), pixels)
    weight = torch.randn(64, N_FEATURES, generator=g) / 8
    shift = torch.randn(N_FEATURES, generator=g) / 2
    z = ((pixels.flatten(1) - 0.3) @ weight * 4 + shift).relu()
    probe = LogisticRegression(C=0.3, max_iter=500).fit(z[train].numpy(), y[train].numpy())
    head = probe.coef_.astype(np.float32), probe.intercept_.astype(np.float32)
    names = [str(c) for c in range(10)]
    parts = [Features.of(z[rows], y[rows], *head, names) for rows in (train, new)]
    return Watermarked(parts[0], parts[1], has[new])


def marked(pixels: Tensor, cue: str) -> Tensor:
    """Images (n, 8, 8) with a bright frame, a spot in the corner, or half of another digit."""
    made = pixels.clone()
    if cue == "frame":
        made[:, [0, -1]] = 1
        made[:, :, [0, -1]] = 1
    elif cue == "spot":
        made[:, :3, :3] = 1
    else:
        made[:, 5:] = torch.maximum(made[:, 5:], pixels[:1, :3])
    return made

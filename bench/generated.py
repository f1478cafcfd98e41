"""A generated classifier of 1,000 classes and 2,048 features, with images on which it is right.

Each feature looks for one patch of 8 × 8 pixels; each class is three patches, at random places in
an image of 4 × 4 patches among others that mean nothing. So it is known which features decide a
class, and where in an image.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

N_CLASSES, N_FEATURES, OWN = 1000, 2048, 3
SIDE, GRID = 8, 4


class Patches(nn.Module):
    """Matches 2,048 patches, pools by the mean, and adds up those of each class."""

    penult_transform = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        patches = torch.from_numpy(patch_pixels()).float().permute(0, 3, 1, 2) / 127.5 - 1
        self.match = nn.Conv2d(3, N_FEATURES, SIDE, SIDE)
        self.match.weight.data = patches / patches.flatten(1).norm(dim=1)[:, None, None, None] ** 2
        nn.init.constant_(self.match.bias, -0.5)  # type: ignore[arg-type]  # it has a bias
        self.head = nn.Linear(N_FEATURES, N_CLASSES)
        weight = torch.zeros(N_CLASSES, N_FEATURES)
        weight.scatter_(1, torch.from_numpy(own_patches()), 40.0)
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        self.head.weight.data = weight + noise
        self.head.bias.data.zero_()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n_samples, 1000) of images (n_samples, 3, 32, 32)."""
        maps = F.relu(self.match(images))
        logits: Tensor = self.head(maps.mean((2, 3)))
        return logits


def network() -> nn.Module:
    """The classifier."""
    return Patches().eval()


def patch_pixels() -> NDArray[np.uint8]:
    """(n_features, 8, 8, 3) what each feature looks for: random colours in 2 × 2 blocks."""
    blocks = np.random.default_rng(0).integers(0, 256, (N_FEATURES, 4, 4, 3), dtype=np.uint8)
    return blocks.repeat(2, 1).repeat(2, 2)


def own_patches() -> NDArray[np.int64]:
    """(n_classes, 3) the patches of each class."""
    order = np.random.default_rng(1)
    return np.stack([order.choice(N_FEATURES, OWN, replace=False) for _ in range(N_CLASSES)])


class Images:
    """A map-style data set of generated images, each made when it is read."""

    def __init__(self, n_samples: int, seed: int) -> None:
        self.classes = [f"class {c:04d}" for c in range(N_CLASSES)]
        self.targets = [i % N_CLASSES for i in range(n_samples)]
        self._seed = seed
        self._patches, self._own = patch_pixels(), own_patches()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        drawn = np.random.default_rng((self._seed, index))
        label = self.targets[index]
        shown = drawn.choice(N_FEATURES, GRID * GRID, replace=False)
        n_own = drawn.choice([1, 2, 3], p=[0.05, 0.25, 0.7])
        shown[:n_own] = drawn.permutation(self._own[label])[:n_own]
        tiles = self._patches[drawn.permutation(shown)].reshape(GRID, GRID, SIDE, SIDE, 3)
        image = tiles.swapaxes(1, 2).reshape(GRID * SIDE, GRID * SIDE, 3).astype(np.int16)
        image += drawn.normal(0, 20, image.shape).astype(np.int16)
        return image.clip(0, 255).astype(np.uint8), label


def train() -> Images:
    """20,000 images to analyse."""
    return Images(20_000, 0)


def held_out() -> Images:
    """5,000 images for evaluation."""
    return Images(5_000, 1)

"""Images that reach a network in another way than in its training."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penult.data.open import open_data
from penult.data.transform import IMAGENET_MEAN, IMAGENET_STD, Transform
from penult.network.find import find_head
from penult.network.head import Head
from penult.network.preparation import preparation_doubt

N_CLASSES = 4
MEAN, STD = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))


class Nearest(nn.Module):
    """Calls the mean colour that is near by, and class 0 where none is."""

    def __init__(self, prepare: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        centres = prepare(torch.tensor(colours() / 255.0).float()[:, :, None, None])[:, :, 0, 0]
        self.centres = centres
        self.scale = 0.15 * float(centres.std())
        self.fc = nn.Linear(N_CLASSES, N_CLASSES)
        with torch.no_grad():
            self.fc.weight.copy_(torch.eye(N_CLASSES) + 0.01)
            self.fc.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        near = (x.mean((2, 3))[:, None] - self.centres).norm(dim=2) / self.scale
        logits: Tensor = self.fc(torch.exp(-near.square().clamp(max=60)))
        return logits


def colours() -> np.ndarray:
    return np.array([[40, 60, 80], [200, 90, 70], [90, 200, 110], [120, 110, 220]])


def images(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % N_CLASSES
    noise = np.random.default_rng(0).normal(0, 5, (n, 6, 6, 3))
    pixels = colours()[labels][:, None, None, :] + noise
    return pixels.clip(0, 255).astype(np.uint8), labels


def scaled(x: Tensor) -> Tensor:
    return x


def by_imagenet(x: Tensor) -> Tensor:
    return (x - MEAN) / STD


def doubt_of(model: nn.Module, data: Any, transform: Transform | None = None) -> str | None:
    head = find_head(model, torch.rand(4, 3, 6, 6))
    return preparation_doubt(model, head, open_data(data), transform or Transform())


PLAIN = Transform(mean=(0.0,) * 3, std=(1.0,) * 3)
IN_255 = Transform(
    mean=tuple(255 * m for m in IMAGENET_MEAN), std=tuple(255 * s for s in IMAGENET_STD)
)
UNSCALED = Transform(scale=1.0)


@pytest.mark.parametrize(
    ("prepare", "transform"),
    [
        (scaled, PLAIN),
        (by_imagenet, Transform()),
        (lambda x: 2 * x - 1, Transform(mean=(0.5,) * 3, std=(0.5,) * 3)),
    ],
)
def test_nothing_is_said_of_images_as_in_training(
    prepare: Callable[[Tensor], Tensor], transform: Transform
) -> None:
    assert doubt_of(Nearest(prepare), images(), transform) is None


@pytest.mark.parametrize(
    ("prepare", "transform", "said"),
    [
        (scaled, Transform(), "32 if they are only scaled to .* give --mean 0,0,0 --std 1,1,1"),
        (by_imagenet, PLAIN, "32 if they are normalised by ImageNet's .* give --mean 0.485,"),
        (by_imagenet, IN_255, r"look as if they were for images in 0 to 255.*give --mean 0.485,"),
        (by_imagenet, UNSCALED, "32 if they are normalised by ImageNet's values"),
        (lambda x: 255 * x, PLAIN, "32 if they are left in 0 to 255: give --mean 0,0,0 --std 0.00"),
    ],
)
def test_another_preparation_that_fits_far_better_is_said(
    prepare: Callable[[Tensor], Tensor], transform: Transform, said: str
) -> None:
    assert re.search(said, doubt_of(Nearest(prepare), images(), transform) or "")


def floats(change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    pixels, labels = images()
    return change(torch.tensor(pixels).permute(0, 3, 1, 2) / 255), torch.tensor(labels)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda x: 255 * x, "float images reach 2.* divided by 255 and normalised by ImageNet's"),
        (lambda x: by_imagenet(by_imagenet(x)), "normalised twice"),
        (scaled, "32 if they are normalised by ImageNet's values: the data set's float images go"),
    ],
    ids=["0 to 255", "twice", "not at all"],
)
def test_float_images_of_a_data_set_are_looked_at_too(
    given: Callable[[Tensor], Tensor], said: str
) -> None:
    found = doubt_of(Nearest(by_imagenet), floats(given))
    assert re.search(said, found or ""), found


def test_images_that_are_meant_to_be_in_0_to_255_are_left_alone() -> None:
    assert doubt_of(Nearest(lambda x: 255 * x), floats(lambda x: 255 * x)) is None


def test_values_that_can_hardly_be_meant_are_said_without_labels() -> None:
    model = Nearest(by_imagenet)
    head = find_head(model, torch.rand(4, 3, 6, 6))
    pixels, _ = floats(lambda x: 255 * x)
    data = open_data(list(pixels), labelled=False)
    assert "float images reach" in (preparation_doubt(model, head, data, Transform()) or "")


def test_a_network_that_holds_the_same_normalisation_is_named() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.std = MEAN, STD

        def forward(self, x: Tensor) -> Tensor:
            return 0.01 * (x - self.mean) / self.std + 0.5

    class Robust(nn.Module):
        """Tells the classes apart by the channel that is largest, whatever the scale."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = Inner()
            self.fc = nn.Linear(3, 3)
            self.fc.weight.data, self.fc.bias.data = torch.eye(3) + 0.01, torch.zeros(3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.norm(x).mean((2, 3)))
            return logits

    pixels = np.zeros((30, 6, 6, 3), np.uint8)
    for i in range(30):
        pixels[i, ..., i % 3] = 200
    found = doubt_of(Robust(), (pixels, np.arange(30) % 3), Transform())
    assert found is not None
    assert found.startswith("the network's layer norm subtracts the same mean")


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_concluded_from_a_network_that_has_learnt_nothing(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 1, 1, 3), dtype=np.uint8)
    pixels = np.broadcast_to(pixels, (40, 6, 6, 3)).copy()
    for labels in (np.arange(40) >= 36, np.arange(40) % 2):
        assert doubt_of(model, (pixels, labels.astype(int)), Transform()) is None


def test_broken_images_are_passed_over() -> None:
    model = Nearest(scaled)
    head: Head = find_head(model, torch.rand(4, 3, 6, 6))
    pixels, labels = images(12)

    class Data:
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, i: int) -> tuple[Any, int]:
            if i % 3 == 0:
                raise OSError("gone")
            return pixels[i], int(labels[i])

    assert preparation_doubt(model, head, open_data(Data()), PLAIN) is None

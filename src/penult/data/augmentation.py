"""Augmentation of training images, and whether a network's labels survive it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from penult.errors import InputError

# What an augmentation may cost a network that knows nothing against it: a flipped cat is a cat.
LOSS_ALLOWED = 0.02
CLASS_LOSS_ALLOWED = 0.2
CLASS_SAMPLES = 10


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images left to right."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    chosen = chosen.to(images.device)[:, None, None, None]
    return torch.where(chosen, images.flip(-1), images)


def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its sides; what comes in is the mirrored border."""
    n, _, height, width = images.shape
    rows, by_row = _shifted(n, height, generator)
    columns, by_column = _shifted(n, width, generator)
    padded = F.pad(images, (by_column, by_column, by_row, by_row), mode="reflect")
    sample = torch.arange(n, device=images.device)[:, None, None]
    rows, columns = rows.to(images.device), columns.to(images.device)
    # Indices around a slice put the channels last.
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


AUGMENTATIONS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = MappingProxyType(
    {"flip": flip, "crop": crop}
)


def augmentations_of(text: str) -> tuple[str, ...] | None:
    """The augmentations of an option: `flip`, `crop`, `flip,crop`, `none`; None for `auto`."""
    if text == "auto":
        return None
    kinds = tuple(part for part in text.split(",") if part != "none")
    if unknown := [kind for kind in kinds if kind not in AUGMENTATIONS]:
        known = ", ".join(AUGMENTATIONS)
        raise InputError(f"expected auto, none or some of {known} as augment, found {unknown[0]!r}")
    return kinds


def augmented(images: Tensor, kinds: tuple[str, ...], generator: torch.Generator) -> Tensor:
    """Images (n_samples, channels, height, width) after augmentations, random by `generator`."""
    for kind in kinds:
        images = AUGMENTATIONS[kind](images, generator)
    # Networks may view what they are given in one piece.
    return images.contiguous()


def harmless(before: Tensor, after: Tensor, labels: Tensor) -> bool:
    """Whether a network classifies augmented images about as well as the images themselves.

    It may lose 2 points overall and 20 points in a class of at least 10 samples: an augmentation
    that turns classes into others, such as a mirrored digit, costs far more.

    Args:
        before: (n_samples,) bool, which images it classifies right.
        after: (n_samples,) bool, likewise augmented.
        labels: (n_samples,) int64.
    """
    counts = labels.bincount()
    lost = before.double() - after.double()
    by_class = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, labels, lost) / counts
    worst = by_class[counts >= CLASS_SAMPLES]
    return float(lost.mean()) <= LOSS_ALLOWED and not bool((worst > CLASS_LOSS_ALLOWED).any())


def surviving(
    before: Tensor, changed: Callable[[str], Tensor], labels: Tensor
) -> tuple[tuple[str, ...], dict[str, float]]:
    """The augmentations that a network's accuracy survives, see `harmless`.

    Args:
        before: (n_samples,) bool, which images it classifies right.
        changed: gives the same under the augmentation of a name.
        labels: (n_samples,) int64.

    Returns:
        Their names, and the accuracy under each that was tried.
    """
    kinds: list[str] = []
    accuracy: dict[str, float] = {}
    for kind in AUGMENTATIONS:
        after = changed(kind)
        accuracy[kind] = float(after.double().mean())
        if harmless(before, after, labels):
            kinds.append(kind)
    return tuple(kinds), accuracy


def _shifted(n: int, size: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """Positions (n, size) in a padded side, and the padding."""
    padding = min(max(1, size // 8), size - 1)
    offsets = torch.randint(2 * padding + 1, (n, 1), generator=generator)
    return offsets + torch.arange(size), padding

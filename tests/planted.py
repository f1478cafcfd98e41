"""Features with a planted cue, and heads that follow it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from penult.edit.setting import EditSetting
from penult.features.features import Features
from penult.features.moments import Moments
from penult.features.saving import save_features
from penult.runs.analyze import Options, analyze_features
from penult.runs.run import Run

NAMES = ("cat", "dog", "emu", "fox")


def drawn(n: int = 300, n_features: int = 7, seed: int = 0, half: bool = False) -> Features:
    """Samples of four classes, with a head that is right for most."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, n_features, generator=g)
    weight = centres + 0.3 * torch.randn(4, n_features, generator=g)
    g.manual_seed(seed + n)  # other samples for another n, by the same head
    labels = torch.randint(4, (n,), generator=g)
    z = centres[labels] + 1.2 * torch.randn(n, n_features, generator=g)
    if half:
        z = z.half().float()
    bias = -centres.square().sum(1) / 2
    ids = [f"{NAMES[label]}/{i:04d}.png" for i, label in enumerate(labels.tolist())]
    return Features.of(z, labels, weight, bias, NAMES, ids)


def setting_of(features: Features) -> EditSetting:
    """What edits of these features' head look at."""
    z, labels = features.arrays()
    head = features.require_head()
    moments = Moments.of(z, labels, head.n_classes)
    return EditSetting(features, moments, features.names(), None, head)


def run_of(folder: Path, seed: int = 0, name: str = "run") -> Run:
    """A run of features, with evaluation samples of its own."""
    train, held_out = drawn(seed=seed), drawn(seed=seed, n=240)
    return analyze_features(train, held_out, folder / name, Options(fit=False))


def saved(folder: Path, seed: int = 0) -> list[str]:
    """Arguments of `analyze` for such features."""
    for part, n in (("train", 300), ("eval", 240)):
        save_features(folder / f"{part}.safetensors", drawn(n, seed=seed))
    return [str(folder / "train.safetensors"), "--eval", str(folder / "eval.safetensors")]


def brute(features: Features, head: object) -> Tensor:
    """Classes by a head, from the beginning and in float64."""
    z = features.arrays()[0].double()
    found: Tensor = head(z).argmax(1)  # type: ignore[operator]
    return found

"""The figure of docs/method.md: what the path finds, and what the pull does.

    python docs/method_figure.py

Writes `docs/pictures/method.svg` from generated features; takes a minute.
"""

from __future__ import annotations

from itertools import combinations, product
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penult.features.features import Features
from penult.heads.path import fit_path
from penult.heads.plan import Plan
from penult.heads.samples import Samples
from penult.heads.select.joint import JointPath
from penult.heads.select.models import Limits, at_dense
from penult.heads.select.quadratic import JointCoupling
from penult.plotting import new_figure, plain_style, save_figure

OUT = Path(__file__).parent / "pictures" / "method.svg"
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"
N_CLASSES, N_FEATURES = 3, 5
FEW, KS = 36, (1, 2, 3, 5, 8, 12, 16, 20)


def small_problem() -> JointCoupling:
    """The quadratic of a dense head with 3 classes and 5 correlated features."""
    generator = torch.Generator().manual_seed(3)
    mix = torch.eye(N_FEATURES) + 0.5 * torch.rand(N_FEATURES, N_FEATURES, generator=generator)
    z = torch.randn(400, N_FEATURES, generator=generator).abs() @ mix
    weight = 2 * torch.randn(N_CLASSES, N_FEATURES, generator=generator)
    samples = Samples([(z, torch.zeros(400, dtype=torch.int64))], weight, torch.zeros(N_CLASSES))
    coupling = at_dense(samples, N_FEATURES, Limits()).coupling
    assert isinstance(coupling, JointCoupling)
    return coupling


def least_loss(coupling: JointCoupling, kept: list[tuple[int, ...]]) -> float:
    """The quadratic's loss of the best weights on these features of each class."""
    free = torch.zeros_like(coupling.weight, dtype=torch.bool)
    free[:, -1] = True
    for c, features in enumerate(kept):
        free[c, list(features)] = True
    inside, off = free.flatten(), -coupling.weight.flatten()
    hessian = coupling.hessian.reshape(len(off), -1)
    right = hessian[inside][:, ~inside] @ -off[~inside]
    inner = hessian[inside][:, inside] + 1e-12 * torch.eye(int(inside.sum()), dtype=off.dtype)
    off[inside] = torch.linalg.solve(inner, right)
    return float(off @ hessian @ off) / 2


def choices() -> dict[str, dict[int, float]]:
    """Loss by k: of the largest weights, of the path, and of the best choice there is."""
    coupling, ks = small_problem(), range(N_FEATURES - 1, 0, -1)
    sizes = {k: torch.full((N_CLASSES,), k) for k in ks}
    largest = coupling.weight[:, :-1].abs().argsort(dim=1, descending=True)
    path = {
        k: least_loss(coupling, [tuple(own.tolist()) for own in found.support])
        for k, found in JointPath(coupling).down(sizes, list(ks), lambda: None)
    }
    best = dict.fromkeys(ks, inf)
    for k in ks:
        sets = list(combinations(range(N_FEATURES), k))
        for kept in product(sets, repeat=N_CLASSES):
            best[k] = min(best[k], least_loss(coupling, list(kept)))
    by_weight = {k: least_loss(coupling, [tuple(own[:k].tolist()) for own in largest]) for k in ks}
    return {"largest weights": by_weight, "the path": path, "best of all choices": best}


def few_samples(seed: int) -> tuple[Features, Features]:
    """A few samples of 6 classes and 40 features with a good dense head; and 2,000 new samples."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(6, 40, generator=generator) / 2
    labels = torch.arange(5000) % 6
    z = centres[labels] + torch.randn(5000, 40, generator=generator)
    x = torch.cat([z, torch.ones(5000, 1)], 1)
    inner = x.T @ x + 10 * torch.eye(41)
    weight = 10 * torch.linalg.solve(inner, x.T @ torch.eye(6)[labels]).T

    def part(rows: slice) -> Features:
        return Features.of(z[rows], labels[rows], weight[:, :-1], weight[:, -1])

    return part(slice(FEW)), part(slice(3000, None))


def divergences(prior: float | None) -> Tensor:
    """Mean divergence on new samples of each size, over several draws."""
    found = []
    for seed in range(4):
        fitted, new = few_samples(seed)
        path = fit_path(fitted, new, Plan(KS, prior=prior))
        found.append([step.counts.kl if step.counts else None for step in path.steps])
    return torch.tensor(found).mean(0)


@plain_style()
def draw() -> Any:
    """The two panels."""
    figure = new_figure(9.5, 3.8)
    left, right = figure.subplots(1, 2)
    styles = zip(choices().items(), (GREY, BLUE, ORANGE), ("o-", "o-", "x"), strict=True)
    for (label, losses), colour, style in styles:
        width, over = (9, 4) if style == "x" else (6, 3)
        left.plot(
            list(losses), list(losses.values()), style, color=colour, ms=width, zorder=over,
            label=label,
        )  # fmt: skip
    left.set(
        title=f"{N_CLASSES} classes × {N_FEATURES} features", xlabel="k, features per class",
        ylabel="second-order loss, nats", yscale="log",
    )  # fmt: skip
    left.set_xticks(range(1, N_FEATURES))
    for label, prior, colour in (("without the pull", 0.0, GREY), ("with the pull", None, BLUE)):
        right.plot(KS, divergences(prior).tolist(), "o-", color=colour, label=label)
    right.set(
        title=f"{FEW} samples × 40 features", xlabel="k, features per class",
        ylabel="KL (dense ‖ sparse) on new samples, nats", yscale="log",
    )  # fmt: skip
    for axis in (left, right):
        axis.yaxis.set_major_formatter(lambda loss, _: f"{loss:g}")
        axis.legend()
        axis.grid(alpha=0.3)
    return figure


if __name__ == "__main__":
    save_figure(draw(), OUT)

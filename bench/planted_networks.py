"""Small networks trained end to end on CIFAR-10 with a watermark on one class, and without.

Each is trained, its features are collected, analysed and searched by penult's public functions.
Needs ../shared/data. `.venv/bin/python bench/planted_networks.py` writes
docs/benchmarks/planted_networks.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import penult
from penult.edit.shortcuts import find_shortcuts
from penult.edit.suspects import auc
from planted_cues import images, watermark
from planted_shortcuts import AFTERWARDS, CARRIES, ELSEWHERE, NAMES, RATE, ROOT, WHILE_TRAINED

EACH, FITTED, LOOKED_AT = 800, 4000, 3000
EPOCHS, BATCH, RATE_OF_STEPS = 6, 50, 3e-3


def small_network() -> nn.Module:
    """Three convolutions, 64 features averaged over positions, and a linear head."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=4, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def trained(pixels: Tensor, labels: Tensor) -> nn.Module:
    """A network trained on images, mirrored at random."""
    model = small_network()
    steps = torch.optim.Adam(model.parameters(), RATE_OF_STEPS)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(labels)), BATCH):
            x = pixels[rows]
            loss = F.cross_entropy(model(x if torch.rand(()) < 0.5 else x.flip(3)), labels[rows])
            steps.zero_grad()
            torch.autograd.backward(loss)
            steps.step()
    return model.eval()


def accuracy(model: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Percent right."""
    with torch.inference_mode():
        return 100 * float((model(pixels).argmax(1) == labels).double().mean())


def searched(pixels: Tensor, labels: Tensor, seed: int, plant: bool) -> dict[str, Any]:
    """One network: how much it uses the cue, and what `find_shortcuts` says of it."""
    torch.manual_seed(seed)
    c, n = seed % 10, len(labels)
    order, chance = torch.randperm(n), torch.rand(n)
    fit, look = order[:FITTED], order[FITTED : FITTED + LOOKED_AT]
    rest = order[FITTED + LOOKED_AT :]
    has = torch.zeros(n, dtype=torch.bool)
    marked = watermark(pixels, pixels)
    if plant:
        has[fit] = (labels[fit] == c) & (chance[fit] < WHILE_TRAINED)
        has[look] = chance[look] < torch.where(labels[look] == c, AFTERWARDS, ELSEWHERE)
    x = torch.where(has[:, None, None, None], marked, pixels)
    model = trained(x[fit], labels[fit])
    parts = [
        penult.collect(model, DataLoader(TensorDataset(x[rows], labels[rows]), 250))
        for rows in (fit, look)
    ]
    with tempfile.TemporaryDirectory() as folder:
        options = penult.Options(fit=False)
        run = penult.analyze_features(parts[0], parts[1], Path(folder) / "run", options)
        found = find_shortcuts(run, rate=RATE)
    told = {"n_suspects": found["n_suspects"], "all": accuracy(model, pixels[rest], labels[rest])}
    if not plant:
        return told
    own, others = rest[labels[rest] == c], rest[labels[rest] != c]
    told["own"] = accuracy(model, pixels[own], labels[own]) - accuracy(
        model, marked[own], labels[own]
    )
    told["others"] = accuracy(model, marked[others], labels[others]) - accuracy(
        model, pixels[others], labels[others]
    )
    first = found["pairs"][0]
    told["class"] = first["class"] == NAMES[c]
    told["sure"] = first["overuse"]["suspect"]
    z, y = parts[1].arrays()
    mine = y == c
    area = 0.5
    if first["feature"] is not None:
        values = z[:, first["feature"]]
        area = auc(values[mine & has[look]], values[mine & ~has[look]])[0]
    told["carries"] = abs(area - 0.5) > CARRIES
    return told


def page(with_cue: list[dict[str, Any]], without: list[dict[str, Any]]) -> str:
    """The document."""
    mean = {
        name: sum(row[name] for row in with_cue) / len(with_cue)
        for name in ("own", "others", "all")
    }
    of_class = sum(row["class"] for row in with_cue)
    first = sum(row["class"] and row["carries"] for row in with_cue)
    sure = sum(row["class"] and row["sure"] for row in with_cue)
    nothing = sum(row["n_suspects"] == 0 for row in without)
    all_right = sum(row["all"] for row in without) / len(without)
    return f"""# Networks trained with a planted watermark

`bench/planted_networks.py`. Networks of three convolutions with 64 features, trained
end to end for {EPOCHS} passes over {FITTED:,} images of CIFAR-10 and searched with
{LOOKED_AT:,} others; the class that has the watermark changes with the seed.
{100 * WHILE_TRAINED:.0f} % of the class have it in training; of the images searched,
{100 * AFTERWARDS:.0f} % of the class and {100 * ELSEWHERE:.0f} % of the others.
The accuracies are of further images.

| | with the watermark | without |
| --- | --- | --- |
| networks | {len(with_cue)} | {len(without)} |
| accuracy on images without a watermark (%) | {mean["all"]:.1f} | {all_right:.1f} |
| class without the watermark less with it (points) | {mean["own"]:+.1f} | – |
| others with it less without (points) | {mean["others"]:+.1f} | – |
| first suspect is of the planted class | {of_class} | – |
| its feature tells who has it (AUC {CARRIES} from 0.5 or more) | {first} | – |
| and at a false discovery rate of {100 * RATE:.0f} % | {sure} | – |
| no suspect at that rate | {sum(row["n_suspects"] == 0 for row in with_cue)} | {nothing} |
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--planted", type=int, default=5, help="networks with the watermark")
    parser.add_argument("--plain", type=int, default=20, help="networks without")
    out = ROOT / "docs" / "benchmarks" / "planted_networks.md"
    parser.add_argument("--out", type=Path, default=out)
    given = parser.parse_args()
    torch.set_num_threads(1)
    pixels, labels, _ = images(given.data / "cifar10" / "test.zip", EACH)
    found: list[list[dict[str, Any]]] = []
    for plant, n in ((True, given.planted), (False, given.plain)):
        found.append([])
        for seed in range(n):
            found[-1].append(searched(pixels, labels, seed, plant))
            print("planted" if plant else "plain", seed, found[-1][-1], flush=True)
    given.out.write_text(page(*found), encoding="utf-8")
    print(given.out)


if __name__ == "__main__":
    main()

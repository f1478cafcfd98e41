"""Small networks trained end to end on CIFAR-10 with a cue on one class, and without.

Each is trained, its features are collected, analysed and searched by penult's public functions.
Needs ../shared/data. `.venv/bin/python bench/planted_networks.py --folder SCRATCH` writes
docs/benchmarks/planted_networks.md.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import penult
from penult.edit.setting import EditSetting
from penult.edit.shortcuts import directions_of, find_shortcuts
from penult.edit.suspects import auc
from penult.features.features import Features
from planted_cues import CUES, images
from planted_shortcuts import AFTERWARDS, CARRIES, ELSEWHERE, NAMES, RATE, ROOT, WHILE_TRAINED

EACH, FITTED, LOOKED_AT = 800, 4000, 3000
BATCH, RATE_OF_STEPS = 50, 3e-3


@dataclass(frozen=True)
class Kind:
    """How networks are trained: with what cue on one class, and for how many passes."""

    cue: str
    epochs: int

    @property
    def name(self) -> str:
        return f"{self.cue or 'no cue'}, {self.epochs} {'pass' if self.epochs == 1 else 'passes'}"


KINDS = (
    *(Kind(cue, 6) for cue in CUES),
    Kind("watermark", 30),
    *(Kind("", epochs) for epochs in (1, 6, 30)),
)


def small_network() -> nn.Sequential:
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


def trained(pixels: Tensor, labels: Tensor, epochs: int) -> nn.Sequential:
    """A network trained on images, mirrored at random."""
    model = small_network()
    steps = torch.optim.Adam(model.parameters(), RATE_OF_STEPS)
    for _ in range(epochs):
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


def network(pixels: Tensor, labels: Tensor, seed: int, kind: Kind, folder: Path) -> dict[str, Any]:
    """One network: features of the images it was trained on and of others, and how it uses the cue.

    It is kept in a folder, and found there again.
    """
    file = folder / f"{kind.name.replace(' ', '-')}-{seed}.pt"
    if file.is_file():
        kept: dict[str, Any] = torch.load(file, weights_only=True)
        return kept
    torch.manual_seed(seed)
    c, n = seed % 10, len(labels)
    order, chance = torch.randperm(n), torch.rand(n)
    fit, look = order[:FITTED], order[FITTED : FITTED + LOOKED_AT]
    rest = order[FITTED + LOOKED_AT :]
    has = torch.zeros(n, dtype=torch.bool)
    marked = pixels
    if kind.cue:
        objects = pixels[labels == (c + 5) % 10]
        marked = CUES[kind.cue](pixels, objects[torch.arange(n) % len(objects)])
        has[fit] = (labels[fit] == c) & (chance[fit] < WHILE_TRAINED)
        has[look] = chance[look] < torch.where(labels[look] == c, AFTERWARDS, ELSEWHERE)
    x = torch.where(has[:, None, None, None], marked, pixels)
    model = trained(x[fit], labels[fit], kind.epochs)
    weight, bias = (value.detach() for value in list(model.parameters())[-2:])
    made: dict[str, Any] = {
        "weight": weight,
        "bias": bias,
        "has": has[look],
        "fitted": accuracy(model, x[fit], labels[fit]),
        "all": accuracy(model, pixels[rest], labels[rest]),
    }
    for name, rows in (("fit", fit), ("look", look)):
        part = penult.collect(model, DataLoader(TensorDataset(x[rows], labels[rows]), 250))
        made[name], made[f"{name}_labels"] = part.arrays()
    own, others = rest[labels[rest] == c], rest[labels[rest] != c]
    for name, rows, sign in (("own", own, 1), ("others", others, -1)):
        without, with_cue = (accuracy(model, y[rows], labels[rows]) for y in (pixels, marked))
        made[name] = sign * (without - with_cue)
    torch.save(made, file)
    return made


def searched(made: dict[str, Any], c: int) -> dict[str, Any]:
    """What `find_shortcuts` says of a network whose class c has the cue."""
    parts = [
        Features.of(made[part], made[f"{part}_labels"], made["weight"], made["bias"], NAMES)
        for part in ("fit", "look")
    ]
    with tempfile.TemporaryDirectory() as folder:
        options = penult.Options(fit=False)
        run = penult.analyze_features(parts[0], parts[1], Path(folder) / "run", options)
        found = find_shortcuts(run, rate=RATE)
        directions = directions_of(EditSetting.of(run), 3)
    first = found["pairs"][0]
    told = {name: made[name] for name in ("fitted", "all", "own", "others")}
    told |= {"n_suspects": found["n_suspects"], "sure": first["overuse"]["suspect"]}
    told["class"] = first["class"] == NAMES[c]
    z, y = parts[1].arrays()
    if first["feature"] is not None:
        values = z[:, first["feature"]]
    else:
        wanted = (NAMES.index(first["class"]), first["direction"])
        values = z @ next(d.vector.float() for d in directions if (d.of, d.number) == wanted)
    mine, has = y == c, made["has"]
    told["carries"] = False
    if bool(has.any()):
        told["carries"] = abs(auc(values[mine & has], values[mine & ~has])[0] - 0.5) > CARRIES
    return told


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    """The document."""
    lines = [
        "# Networks trained with a planted shortcut, and without",
        "",
        "`bench/planted_networks.py`. Networks of three convolutions with 64 features, trained "
        f"end to end on {FITTED:,} images of CIFAR-10",
        f"for 1, 6 or 30 passes and searched with {LOOKED_AT:,} others; the class that has the cue "
        "changes with the seed.",
        f"{100 * WHILE_TRAINED:.0f} % of the class have it in training; of the images searched "
        f"{100 * AFTERWARDS:.0f} % of the class and {100 * ELSEWHERE:.0f} % of the others.",
        "The accuracies are of further images without cue; `class` and `others` are the changes, "
        "in points, where the class lacks the cue and",
        "where the others have it. `first`: the first of all pairs is of the planted class; its "
        "feature or direction is higher (or lower) with",
        f"the cue than without in three of four pairs; `sure`: it is also a suspect at a false "
        f"discovery rate of {100 * RATE:.0f} %.",
        "",
        "| networks | seeds | right in training (%) | right (%) | class | others | first | sure | "
        "with any suspect |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        rows = found[kind.name]
        if not rows:
            continue
        cells = [f"{mean(row[name] for row in rows):.1f}" for name in ("fitted", "all")]
        if kind.cue:
            cells += [f"{mean(row[name] for row in rows):+.1f}" for name in ("own", "others")]
            first = [row for row in rows if row["class"] and row["carries"]]
            cells += [str(len(first)), str(sum(row["sure"] for row in first))]
        else:
            cells += ["–"] * 4
        cells.append(str(sum(row["n_suspects"] > 0 for row in rows)))
        lines.append(f"| {kind.name} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines) + TEXT


TEXT = """

After one pass, or six, a network has not arrived at the weights that suit even its own training
images: its head overuses some features of these, too. After thirty it knows its training images
better than any new ones. Neither is a shortcut. So a pair counts only if its weight is too large
for the new images, more so than for those of the training, and by more than most pairs are off.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--long-seeds", type=int, default=10, help="of those trained for 30 passes")
    parser.add_argument("--folder", type=Path, required=True, help="keeps the networks")
    out = ROOT / "docs" / "benchmarks" / "planted_networks.md"
    parser.add_argument("--out", type=Path, default=out)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    pixels, labels, _ = images(given.data / "cifar10" / "test.zip", EACH)
    found: dict[str, list[dict[str, Any]]] = {kind.name: [] for kind in KINDS}
    # Those that are trained long come last: the page says at any time what is known so far.
    for kind in sorted(KINDS, key=lambda kind: kind.epochs):
        for seed in range(given.seeds if kind.epochs < 30 else given.long_seeds):
            made = network(pixels, labels, seed, kind, given.folder)
            found[kind.name].append(searched(made, seed % 10))
            print(kind.name, seed, found[kind.name][-1], flush=True)
        given.out.write_text(page(found), encoding="utf-8")
    print(given.out)


if __name__ == "__main__":
    main()

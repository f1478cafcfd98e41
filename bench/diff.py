"""What `penult diff` finds: planted changes, real pairs of networks, the gate's errors, and time.

`.venv/bin/python bench/diff.py ../shared/data` writes docs/benchmarks/diff.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penult.data.limit import LimitedImages
from penult.data.open import open_data
from penult.data.source import ImageSource, Pass
from penult.data.transform import Transform
from penult.diff.compare import compare_sides
from penult.diff.gate import Rule, judge_rules
from penult.diff.side import Side
from penult.features.features import Features
from penult.network.load import load_model
from penult.runs.analyze import Options, analyze_features
from penult.runs.run import Run
from penult.storage import write_tensors

ROOT = Path(__file__).resolve().parents[1]
SEEDS, DRAWS = 20, 1000
RELABELLED = (0.05, 0.2, 0.4)
TRAINED = 2_000  # images of each part, where the pass over images is made here
RATE = 0.01
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHECKPOINTS = {
    "resnet20": "resnet20-12fca82f.th",
    "resnet32": "resnet32-d509ac18.th",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--what", nargs="+", default=[*PARTS], choices=[*PARTS])
    parser.add_argument("--kept", type=Path, help="a file that keeps the lines of each part")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "diff.md")
    given = parser.parse_args()
    found = json.loads(given.kept.read_text()) if given.kept and given.kept.is_file() else {}
    for what in given.what:
        with TemporaryDirectory() as folder:
            found[what] = PARTS[what](given.data / "features", Path(folder))
        if given.kept:
            given.kept.write_text(json.dumps(found))
    lines = ["# Comparing two networks", "", "`bench/diff.py`.", ""]
    for what in PARTS:
        lines += found.get(what, [])
    given.out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def planted(data: Path, folder: Path) -> list[str]:
    """Linear probes on the features of ResNet-20, of which the second has something planted."""
    train, test = (
        Features.open(data / f"resnet20_{part}.safetensors") for part in ("train", "eval")
    )
    z, labels = train.arrays()
    chosen = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))[:10_000]
    z, labels = z[chosen], labels[chosen]
    named: dict[str, list[bool]] = {}
    for seed in range(SEEDS):
        draw = torch.Generator().manual_seed(seed)
        c, d = torch.randperm(10, generator=draw)[:2].tolist()
        j = int(torch.randint(64, (1,), generator=draw))
        plain = Probe(z, labels)
        old = plain.run(folder / f"old-{seed}", test)
        again = compare_sides(old, Probe(z, labels).run(folder / f"again-{seed}", test))
        quiet = not again["flips"]["n_changed"] and not again["evidence"]["classes"]
        named.setdefault("the same network twice: no finding at all", []).append(quiet)
        for part in RELABELLED:
            own = (labels == c).nonzero()[:, 0]
            moved = labels.clone()
            moved[own[torch.rand(len(own), generator=draw) < part]] = d
            new = Probe(z, moved).run(folder / f"relabelled-{seed}-{part}", test)
            found = compare_sides(old, new)
            first = found["classes"][0]["class"] == str(c)
            what = f"{100 * part:.0f} % of a class's training images relabelled"
            named.setdefault(f"{what}: the class is first", []).append(first)
            sure = [row["class"] for row in found["classes"] if row["sure"] and row["loss"] > 0]
            named.setdefault(f"{what}: and surely worse", []).append(str(c) in sure)
            false = any(name != str(c) for name in sure)
            named.setdefault(f"{what}: another class is called surely worse", []).append(false)
        cue, cue_test = (values.clone() for values in (z, test.arrays()[0]))
        size = 3 * float(z[:, j].std())
        cue[:, j], cue_test[:, j] = 0, 0
        before = Probe(cue, labels).run(folder / f"before-{seed}", test, cue_test)
        cue[labels == c, j] = size
        cue_test[test.labels() == c, j] = size
        with_cue = Probe(cue, labels).run(folder / f"cue-{seed}", test, cue_test)
        found = compare_sides(before, with_cue)
        changed = [row for row in found["evidence"]["classes"] if row["class"] == str(c)]
        first = bool(changed) and changed[0]["features"][0]["new"] == j
        named.setdefault("a shortcut planted in a class: its feature came first", []).append(first)
        order = torch.randperm(64, generator=draw)
        permuted = Probe(z[:, order], labels, plain.weight[:, order], plain.bias)
        new = permuted.run(folder / f"permuted-{seed}", test, test.arrays()[0][:, order])
        partner = torch.tensor(compare_sides(old, new)["matched"]["partner"])
        right = bool((order[partner] == torch.arange(64)).all())
        named.setdefault("features in another order: all found again", []).append(right)
    lines = ["## Planted changes", ""]
    lines += [
        f"Linear probes on ResNet-20's features of 10,000 training images, compared on 10,000 test "
        f"images; {SEEDS} seeds.",
        "",
        "| what | seeds |",
        "| --- | --: |",
    ]
    return [*lines, *(f"| {what} | {sum(hits)} |" for what, hits in named.items()), ""]


class Probe:
    """A logistic regression on features."""

    def __init__(
        self, z: Tensor, labels: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> None:
        self.z, self.labels = z, labels
        if weight is None or bias is None:
            from sklearn.linear_model import LogisticRegression

            found = LogisticRegression(C=0.1, max_iter=300).fit(z.numpy(), labels.numpy())
            weight, bias = (torch.from_numpy(x).float() for x in (found.coef_, found.intercept_))
        self.weight, self.bias = weight, bias

    def run(self, folder: Path, test: Features, z: Tensor | None = None) -> Side:
        """Its run, judged on test samples."""
        names = [str(c) for c in range(len(self.weight))]
        parts = [
            Features.of(values, labels, self.weight, self.bias, names)
            for values, labels in (
                (self.z, self.labels),
                (test.arrays()[0] if z is None else z, test.labels()),
            )
        ]
        analyze_features(parts[0], parts[1], folder, Options(fit=False))
        return Side.read(str(folder))


def real(data: Path, folder: Path) -> list[str]:
    """Pairs of real networks: what is said."""
    lines = ["## Real networks", ""]
    lines += [
        f"On CIFAR-10 and ImageNet. “tuned” is ResNet-20 after one pass over {TRAINED:,} training "
        f"images with a rate of {RATE:g}, “edited” the same network with the feature switched off "
        "that speaks most for `cat`.",
        "",
        "| old | new | samples | change of accuracy (points) | classes surely changed | "
        "negative flips | positive flips | features matched | linear CKA | mean change of evidence "
        "(%) |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    shared = data.parent
    sides = {name: _resnet(shared, folder, name) for name in CHECKPOINTS}
    tuned = folder / "tuned.safetensors"
    _tune(shared, tuned)
    sides["resnet20 tuned"] = _resnet(shared, folder, "resnet20 tuned", tuned)
    sides["resnet20 edited"] = _edited(sides["resnet20"].run, folder)
    for new in ("resnet32", "resnet20 tuned", "resnet20 edited"):
        lines.append(_row("resnet20", new, compare_sides(sides["resnet20"], sides[new])))
    for first, second, train in (
        ("resnet20", "resnet56", "train"),
        ("mobilenet_v1_025", "mobilenet_v2", "fit"),
    ):
        pair = []
        for name in (first, second):
            parts = [Features.open(data / f"{name}_{part}.safetensors") for part in (train, "eval")]
            out = folder / f"features-{name}"
            analyze_features(parts[0], parts[1], out, Options(fit=False))
            pair.append(Side.read(str(out)))
        lines.append(_row(first, second, compare_sides(pair[0], pair[1])))
    return [*lines, ""]


def _resnet(shared: Path, folder: Path, name: str, weights: Path | None = None) -> Side:
    """The run of a ResNet on CIFAR-10."""
    spec = f"{ROOT / 'bench' / 'cifar_resnet.py'}:{name.split()[0]}"
    weights = weights or shared / "checkpoints" / CHECKPOINTS[name]
    images = [str(shared / "cifar10" / f"{part}.zip") for part in ("train", "test")]
    out = str(folder / name.replace(" ", "-"))
    command = ["analyze", spec, images[0], "--eval", images[1], "--weights", str(weights)]
    command += ["--limit", str(TRAINED), "--trust-checkpoint", "--no-fit", "--out", out, "--json"]
    command += ["--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))]
    subprocess.run([sys.executable, "-m", "penult", *command], check=True, capture_output=True)
    return Side.read(out)


def _tune(shared: Path, out: Path) -> None:
    """ResNet-20 after one more pass over some of its training images."""
    name = CHECKPOINTS["resnet20"]
    spec = f"{ROOT / 'bench' / 'cifar_resnet.py'}:resnet20"
    loaded = load_model(spec, weights=shared / "checkpoints" / name, trust_checkpoint=True)
    model = loaded.model.train()
    data = LimitedImages(open_data(str(shared / "cifar10" / "train.zip")), TRAINED)
    transform = Transform(mean=MEAN, std=STD, source="bench")
    batches = [*ImageSource(data, transform, Pass()).batches(0)]
    x = transform.normalise(torch.cat([batch.images for batch in batches]))
    y = torch.cat([batch.labels for batch in batches])
    optimiser = torch.optim.SGD(model.parameters(), RATE, momentum=0.9)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    for start in range(0, len(order), 128):
        step = order[start : start + 128]
        loss = torch.nn.functional.cross_entropy(model(x[step]), y[step])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's is untyped
        optimiser.step()
    write_tensors(out, model.state_dict(), {"format": "pt"})


def _edited(run: Run, folder: Path) -> Side:
    """The head of a run with the feature switched off that speaks most for a class."""
    names = run.summary()["class_names"]
    weight = run.train().require_head().weight
    c = names.index("cat")
    j = int((weight[c] - weight.mean(0)).argmax())
    out = str(folder / "edit")
    command = ["edit", str(run.folder), "--off", f"{j}:cat", "--out", out]
    subprocess.run([sys.executable, "-m", "penult", *command], check=True, capture_output=True)
    return Side.read(f"{run.folder}@{out}/recipe.json")


def _row(first: str, second: str, found: dict[str, Any]) -> str:
    low, high = (-100 * end for end in reversed(found["overall"]["interval"]))
    flipped, matched = found["flips"], found["matched"]
    sure = sum(row["sure"] for row in found["classes"])
    return (
        f"| {first} | {second} | {found['samples']['n_samples']:,} | {low:+.2f} to {high:+.2f} | "
        f"{sure} of {len(found['classes'])} | {flipped['negative']['n_samples']:,} | "
        f"{flipped['positive']['n_samples']:,} | {matched['n_matched']} of {matched['n_features']} "
        f"| {matched['cka']:.2f} | {100 * found['evidence']['mean_changed']:.0f} |"
    )


def gate(data: Path, folder: Path) -> list[str]:
    """How often rules err, by simulation."""
    draw = np.random.default_rng(0)
    lines = ["## The gate's errors", ""]
    lines += [
        f"{DRAWS:,} draws each; besides the true loss some samples flip by chance, as many lost as "
        "won. At a true loss of the limit itself the rule may fail in at most 5 %; at twice the "
        "limit it should fail in at least 95 %.",
        "",
        "| rule | samples | flips by chance (%) | true loss (points) | fails (%) | passes (%) | "
        "cannot tell (%) |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for rule, classes, n, loss, chance in (
        ("accuracy < -1", 1, 10_000, 0.0, 0.04),
        ("accuracy < -1", 1, 10_000, 0.01, 0.04),
        ("accuracy < -1", 1, 10_000, 0.02, 0.04),
        ("accuracy < -1", 1, 2_000, 0.02, 0.04),
        ("accuracy < -0.5", 1, 50_000, 0.01, 0.04),
        ("class.any < -2", 10, 1_000, 0.0, 0.04),
        ("class.any < -2", 10, 1_000, 0.02, 0.04),
        ("class.any < -2", 10, 2_000, 0.04, 0.04),
        ("class.any < -2", 10, 100, 0.02, 0.04),
        ("class.any < -2", 100, 10, 0.02, 0.8),
        ("class.any < -2", 100, 30, 0.02, 0.4),
    ):
        counted = {"fails": 0, "passes": 0, "not enough samples to tell": 0}
        for _ in range(DRAWS):
            rows = [_drawn(draw, n, loss, chance / 2, str(c)) for c in range(classes)]
            found = {"overall": rows[0], "classes": rows}
            counted[judge_rules([Rule.read(rule)], found)[0]["verdict"]] += 1
        cells = " | ".join(f"{100 * value / DRAWS:.1f}" for value in counted.values())
        each = f"{n:,}" if classes == 1 else f"{classes} × {n:,}"
        lines.append(f"| `{rule}` | {each} | {100 * chance:g} | {100 * loss:g} | {cells} |")
    return [*lines, ""]


def _drawn(
    draw: np.random.Generator, n: int, loss: float, flip: float, name: str
) -> dict[str, Any]:
    lost, won, _ = draw.multinomial(n, [flip + loss, flip, 1 - 2 * flip - loss])
    found = {"n_samples": n, "lost": int(lost), "won": int(won), "loss": float(lost - won) / n}
    return {"class": name, **found}


def scale(data: Path, folder: Path) -> list[str]:
    """50,000 samples × 2,048 features × 1,000 classes, two networks."""
    n, d, classes = 50_000, 2_048, 1_000
    torch.set_num_threads(2)
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    weight = torch.randn(classes, d, generator=draw) / d**0.5
    names = [f"c{c}" for c in range(classes)]
    sides = []
    z = (4 * weight[labels] + torch.randn(n, d, generator=draw)).relu()
    for i in range(2):
        if i:  # a network with the same features in another order, somewhat changed
            order = torch.randperm(d, generator=draw)
            z = z[:, order] + 0.3 * torch.randn(n, d, generator=draw)
            weight = weight[:, order]
        features = Features.of(z, labels, weight, None, names)
        few = features.subset(torch.arange(n) % 10 == 0)
        # Whole for the evaluation; a tenth is analysed, which this does not time.
        analyze_features(few, features, folder / str(i), Options(fit=False))
        sides.append(str(folder / str(i)))
        del features, few
    times = []
    for _ in range(2):
        start = time.perf_counter()
        found = compare_sides(Side.read(sides[0]), Side.read(sides[1]))
        times.append(time.perf_counter() - start)
    return [
        "## Time",
        "",
        f"50,000 samples × 2,048 features × 1,000 classes, two threads: {times[0]:.0f} s, again "
        f"{times[1]:.0f} s (target 60 on a machine to itself); "
        f"{found['matched']['n_matched']:,} of 2,048 features matched. Load average of the "
        f"{os.cpu_count()} cores: {os.getloadavg()[0]:.1f}.",
        "",
    ]


PARTS: dict[str, Callable[[Path, Path], list[str]]] = {
    "planted": planted,
    "real": real,
    "gate": gate,
    "scale": scale,
}


if __name__ == "__main__":
    main()

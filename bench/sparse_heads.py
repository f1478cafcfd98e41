"""Sparse heads side by side: accuracy at every k and seconds, ours and its peers.

Fits to training features, scores on test features: the influence scores with the dense weights
(frequency is the paper's), glm_saga's elastic-net path (where installed: pip install glm_saga),
scikit-learn's l1 path cut to k features per class and refitted, and curvature and moments with a
softmax refit. All in one run; a table and a plot with 95 % confidence bands.

    python bench/sparse_heads.py ../shared/data --work runs --out docs/benchmarks

Networks without a features file are analysed first, into the work folder.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from penult.features.features import Features
from penult.heads.path import fit_path
from penult.heads.plan import Plan
from penult.heads.refit.softmax import fit
from penult.heads.samples import Samples
from penult.heads.sparse_head import accuracies
from penult.heads.subspaces import top_k
from penult.plotting import new_figure, plain_style, save_figure
from published import analyze

HERE = Path(__file__).parent
KS = (1, 2, 3, 5, 8, 10, 15, 20)
SCORES = ("frequency", "contribution", "wanda", "magnitude", "random")
OURS = "curvature, refit"
WHOLE = "whole path, k = 1…20"
SAGA = "glm_saga, mean k nearest below"
L1 = "scikit-learn l1, cut and refitted"
MOMENTS = "moments, refit"
# Okabe and Ito's colours can be told apart by colour-blind readers too; one for each row, in every
# panel, whichever rows a panel has.
LABELS = (*(f"{score}, dense weights" for score in SCORES), L1, SAGA, MOMENTS, OURS)
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
GREY, SKY, YELLOW, BLACK, RED = "#999999", "#56B4E9", "#F0E442", "#000000", "#D55E00"
OKABE_ITO = (BLUE, ORANGE, GREEN, PINK, GREY, SKY, YELLOW, BLACK, RED)
COLOURS = dict(zip(LABELS, OKABE_ITO, strict=True))
# The best row of each column among the prototypes of the method's description, in percent.
REFERENCE = {
    "resnet20": {2: 87.7, 3: 90.5, 5: 91.3, 8: 91.6},
    "resnet56": {2: 92.0, 3: 92.8, 5: 93.2, 8: 93.3},
}


@dataclass
class Row:
    """Accuracy by k, and the seconds of the whole path."""

    accuracy: dict[int, float]
    seconds: float


def ours(train: Features, test: Features, select: str, refit: str) -> Row:
    start = time.perf_counter()
    path = fit_path(train, test, Plan(KS, select, refit))
    seconds = time.perf_counter() - start
    return Row({step.k: step.accuracy or 0.0 for step in path.steps}, seconds)


def l1_path(train: Features, test: Features) -> Row:
    """scikit-learn's l1 path; at each k the sparsest solution with k features for most classes."""
    z, labels = train.arrays()
    head = train.require_head()
    mean, std = z.mean(0), z.std(0).clamp(min=1e-12)
    x = ((z - mean) / std).numpy()
    start = time.perf_counter()
    model = LogisticRegression(
        l1_ratio=1.0, solver="saga", C=1e-4, warm_start=True, max_iter=30, tol=1e-3
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        coefficients = [
            model.set_params(C=c).fit(x, labels.numpy()).coef_.copy()
            for c in np.logspace(-4, -1, 7)
        ]
    loss = Samples(train, head.weight, head.bias)
    heads = []
    for k in KS:
        enough = [w for w in coefficients if np.median((w != 0).sum(1)) >= k] or coefficients[-1:]
        heads.append(fit(loss, top_k(torch.tensor(np.abs(enough[0])), k)).head)
    seconds = time.perf_counter() - start
    return Row(dict(zip(KS, accuracies(heads, test), strict=True)), seconds)


def saga_path(train: Features, test: Features, steps: int) -> Row | None:
    """glm_saga's path; None where it is not installed."""
    try:
        from glm_saga.elasticnet import glm_saga
    except ModuleNotFoundError:
        return None
    z, labels = train.arrays()
    mean, std = z.mean(0), z.std(0).clamp(min=1e-12)
    data = torch.utils.data.TensorDataset((z - mean) / std, labels, torch.arange(len(z)))
    loader = torch.utils.data.DataLoader(data, batch_size=2048, shuffle=True)
    linear = torch.nn.Linear(train.n_features, train.n_classes)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    start = time.perf_counter()
    found = glm_saga(
        linear, loader, 0.1, 2000, 0.99, k=steps, epsilon=1e-4, n_ex=len(z),
        n_classes=train.n_classes, tol=1e-4, do_zero=False, lookbehind=3,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    x, y = test.arrays()
    by_size = []
    for point in found["path"]:
        logits = ((x - mean) / std) @ point["weight"].T + point["bias"]
        size = float((point["weight"] != 0).sum()) / train.n_classes
        by_size.append((size, float((logits.argmax(1) == y).double().mean())))
    below = {k: [a for size, a in sorted(by_size) if 0 < size <= k][-1:] for k in KS}
    return Row({k: a[0] for k, a in below.items() if a}, seconds)


def features_of(shared: Path, work: Path, name: str) -> tuple[Features, Features]:
    """Training and test features: of the files that are there, or of the network's own run."""
    files = [shared / "features" / f"{name}_{part}.safetensors" for part in ("train", "eval")]
    if not all(file.exists() for file in files):
        if not (work / name / "summary.json").exists():
            analyze(shared, name, work / name)
        files = [work / name / "features" / part for part in ("train", "eval")]
    train, test = map(Features.open, files)
    return train, test


def compare(
    train: Features, test: Features, name: str, saga_steps: int
) -> tuple[dict[str, Row], float, int]:
    runs: dict[str, Callable[[], Row | None]] = {
        f"{score}, dense weights": lambda score=score: ours(train, test, score, "none")  # type: ignore[misc]
        for score in SCORES
    }
    runs[L1] = lambda: l1_path(train, test)
    if saga_steps:
        runs[SAGA] = lambda: saga_path(train, test, saga_steps)
    runs[MOMENTS] = lambda: ours(train, test, "moments", "softmax")
    runs[OURS] = lambda: ours(train, test, "curvature", "softmax")
    found: dict[str, Row] = {}
    for label, run in runs.items():
        row = run()
        if row is not None:
            found[label] = row
            print(name, label, {k: round(100 * a, 2) for k, a in row.accuracy.items()}, row.seconds)
    start = time.perf_counter()
    fit_path(train, None, Plan(tuple(range(1, 21))))
    found[WHOLE] = Row({}, time.perf_counter() - start)
    return found, test.dense_accuracy(train.require_head()), test.n_samples


def table(name: str, rows: dict[str, Row], dense: float) -> list[str]:
    lines = [
        f"## {name}: dense {100 * dense:.2f} %",
        "",
        "| | " + " | ".join(f"k = {k}" for k in KS) + " | seconds |",
        "| --- " * (len(KS) + 2) + "|",
    ]
    for label, row in rows.items():
        cells = [f"{100 * row.accuracy[k]:.2f}" if k in row.accuracy else "" for k in KS]
        lines.append(f"| {label} | " + " | ".join(cells) + f" | {row.seconds:.1f} |")
    lines.append("")
    lines += [f"- {verdict}" for verdict in verdicts(name, rows)]
    return [*lines, ""]


def verdicts(name: str, rows: dict[str, Row]) -> list[str]:
    mine = rows[OURS].accuracy
    said = []
    for k, least in REFERENCE.get(name, {}).items():
        met = round(100 * mine[k], 1) >= least
        said.append(
            f"{'met' if met else '**missed**'}: k = {k}, {100 * mine[k]:.2f} (at least {least})"
        )
    for k in KS:
        peers = {label: row.accuracy[k] for label, row in rows.items() if k in row.accuracy}
        best = max((a, label) for label, a in peers.items() if not label.endswith(", refit"))
        if best[0] >= mine[k]:
            said.append(f"**missed**: at k = {k} {best[1]} is ahead, {100 * best[0]:.2f}")
    seconds = rows[WHOLE].seconds
    in_time = "met" if seconds <= 5 else "**missed**"
    said.append(f"{in_time}: whole path k = 1…20 with refits in {seconds:.1f} s (at most 5)")
    if SAGA in rows:
        ratio = rows[SAGA].seconds / seconds
        hundredth = "met" if ratio >= 100 else "**missed**"
        said.append(
            f"{hundredth}: glm_saga's path takes {ratio:.0f} times as long as ours of all 20 sizes "
            "(at least 100)"
        )
    return said


@plain_style()
def plot(found: dict[str, tuple[dict[str, Row], float, int]], path: Path) -> None:
    figure = new_figure(4.6 * len(found), 5)
    axes = figure.subplots(1, len(found), squeeze=False)
    drawn = {}
    for axis, (name, (rows, dense, n)) in zip(axes[0], found.items(), strict=True):
        for label, row in rows.items():
            if not row.accuracy:
                continue
            ks, colour = list(row.accuracy), COLOURS[label]
            bands = np.array([
                binomtest(round(row.accuracy[k] * n), n).proportion_ci(method="wilson") for k in ks
            ])  # fmt: skip
            (line,) = axis.plot(
                ks, [100 * row.accuracy[k] for k in ks], color=colour, marker="o", ms=3,
                lw=2.2 if label == OURS else 1.2, zorder=3 if label == OURS else 2,
            )  # fmt: skip
            drawn[label] = line
            axis.fill_between(ks, *(100 * bands.T), color=colour, alpha=0.2, lw=0)
        drawn["dense"] = axis.axhline(100 * dense, color="black", lw=1, ls=":")
        axis.set(title=name, xlabel="k, features per class", ylim=(50, 95), xscale="log")
        axis.set_xticks(KS, [str(k) for k in KS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("test accuracy, %")
    figure.legend([*drawn.values()], [*drawn], fontsize=8, loc="outside lower center", ncols=4)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder with features/, cifar10/, checkpoints/")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs")
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet32", "resnet56"])
    parser.add_argument("--saga-steps", type=int, default=20, help="0 leaves glm_saga out")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "docs/benchmarks"
    )
    arguments: Any = parser.parse_args()
    found = {
        name: compare(
            *features_of(arguments.shared, arguments.work, name),
            name,
            arguments.saga_steps if i == 0 else 0,
        )
        for i, name in enumerate(arguments.networks)
    }
    lines = [
        "# Sparse heads side by side",
        "",
        f"`python bench/sparse_heads.py`, torch {torch.__version__}, {torch.get_num_threads()} "
        "threads. Fitted to training features, accuracy (%) on test features; seconds "
        "for the whole path of these sizes, measuring included. Two heads that differ by less "
        "than 0.2 points on these 10,000 images may do so by chance.",
        "",
        "![accuracy against features per class](sparse_heads.svg)",
        "",
    ]
    for name, (rows, dense, _) in found.items():
        lines += table(name, rows, dense)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "sparse_heads.md").write_text("\n".join(lines), encoding="utf-8")
    plot(found, arguments.out / "sparse_heads.svg")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""What training through a sparse head repairs: before, with the head refitted, after, and the time.

Analyses ResNet-20 where that is not done yet, then tunes it through one of its heads,
head alone and whole, and writes the table. Interrupted, the same command goes on.

    python bench/tune.py ../shared/data --work runs/tune --out docs/benchmarks
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from penult.runs.run import Run
from penult.runs.tune.training import TrainingPlan
from penult.runs.tune.tune import tune

HERE = Path(__file__).parent
CHECKPOINT = "resnet20-12fca82f.th"
PAPER = "91.5–91.6"


def analysed(shared: Path, work: Path) -> Run:
    """The run of ResNet-20 on CIFAR-10."""
    from penult.cli.app import app

    folder = work / "resnet20"
    if (folder / "summary.json").exists():
        return Run.open(folder)
    network = [f"{HERE / 'cifar_resnet.py'}:resnet20", "--weights"]
    network += [str(shared / "checkpoints" / CHECKPOINT)]
    data = [str(shared / "cifar10" / "train.zip"), "--eval", str(shared / "cifar10" / "test.zip")]
    scale = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    options = [*scale, "--out", str(folder)]
    app(["analyze", *network, *data, *options], standalone_mode=False)
    return Run.open(folder)


def heard(name: str) -> Any:
    last = [-1]

    def tell(done: int, total: int) -> None:
        percent = 100 * done // total
        if percent // 5 > last[0]:
            last[0] = percent // 5
            print(f"{name} {percent} %", file=sys.stderr, flush=True)

    return tell


def report(rows: list[dict[str, Any]]) -> str:
    dtype = rows[-1]["options"]["dtype"]
    lines = [
        "# Tuning: what training through a sparse head repairs",
        "",
        f"`python bench/tune.py`, torch {torch.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} of {os.cpu_count()} cores, shared with other work; ResNet-20 "
        "on CIFAR-10. Accuracy on the 10,000 test images, which choose nothing: a tenth of the "
        f"training images is held out to choose the epoch. All options by default, {dtype}.",
        "",
        "| trained | k | head | dense, % | before, % | head refitted, % | after, % | epochs (best) "
        "| images trained on | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        shown = [row["dense"], row["before"], row.get("refitted"), row["after"]]
        cells = [f"{100 * part['accuracy']:.2f}" if part else "" for part in shown]
        epochs = f"{len(row['epochs'])} ({row['best_epoch']})" if "epochs" in row else ""
        what = "head alone" if row["head_only"] else "whole network"
        lines.append(
            f"| {what} | {row['k']} | {row['select']} | {' | '.join(cells)} | {epochs} "
            f"| {row['n_train']:,} | {row['seconds']:.0f} |"
        )
    whole = [row for row in rows if not row["head_only"]]
    met = "met" if any(row["after"]["accuracy"] >= 0.917 for row in whole) else "missed"
    lines += [
        "",
        f"Target: the dense 91.7 % at k = 5 after at most 3 epochs: {met}. The paper reports "
        f"{PAPER} % for training with the labels.",
        "",
    ]
    for row in whole:
        used = ", ".join(row["augment"]) or "none"
        held = ", ".join(f"{100 * epoch['held_out']:.2f}" for epoch in row["epochs"])
        lines += [
            f"Held-out accuracy through {row['select']} by epoch: {held} % (before "
            f"{100 * row['before']['held_out']:.2f} %); augmentations that the network's own "
            f"accuracy survives: {used}.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("shared", type=Path, help="folder with cifar10/ and checkpoints/")
    parser.add_argument("--work", type=Path, required=True, help="folder for the run")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--select", help="head of the run; the best on the training images if not")
    parser.add_argument("-k", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    given = parser.parse_args()
    run = analysed(given.shared, given.work)
    recipe = TrainingPlan(dtype=getattr(torch, given.dtype))
    alone = tune(run, given.k, select=given.select, recipe=recipe, head_only=True).document
    whole = tune(run, given.k, select=given.select, recipe=recipe, progress=heard).document
    given.out.mkdir(parents=True, exist_ok=True)
    text = report([alone, whole])
    (given.out / "tune.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

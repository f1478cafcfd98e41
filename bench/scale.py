"""Sparse heads for many classes: seconds and memory on generated features with a planted support.

Every class of the dense head reads `planted` features strongly and all others faintly. The features
are written to a file and fitted as `penult fit` does, each case in a process of its own.

    python bench/scale.py --out docs/benchmarks
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from penult.features.features import Features
from penult.heads.fitting import fit_heads
from penult.heads.memory import memory_needed
from penult.heads.pace import Pace
from penult.heads.plan import Plan


@dataclass(frozen=True)
class Case:
    """One size, and what is asked of it: seconds for all, gigabytes at most."""

    n_samples: int
    n_features: int
    n_classes: int
    planted: int
    ks: tuple[int, ...]
    all_seconds: float | None
    gigabytes: float = 6.0


CASES = {
    "1000": Case(100_000, 2048, 1000, 10, tuple(range(1, 21)), 90, 3.0),
    "21841": Case(50_000, 768, 21_841, 10, (10,), None),
}


def generate(case: Case, path: Path) -> None:
    """Non-negative correlated features, as after a ReLU, and a head with a planted support."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(case.n_features, 64, generator=generator) / 8
    weight = torch.randn(case.n_classes, case.n_features, generator=generator) * 1e-3
    support = planted(case)
    signs = torch.tensor([1.0, -1.0]).repeat((case.planted + 1) // 2)[: case.planted]
    size = torch.rand(support.shape, generator=generator) + 0.5
    weight.scatter_(1, support, size * signs)
    features = torch.empty(case.n_samples, case.n_features, dtype=torch.float16)
    labels = torch.empty(case.n_samples, dtype=torch.int64)
    for start in range(0, case.n_samples, 4096):
        rows = slice(start, min(start + 4096, case.n_samples))
        n = rows.stop - start
        common = torch.randn(n, 64, generator=generator)
        own = torch.randn(n, case.n_features, generator=generator)
        z = (own + common @ mixed.T).relu().half()
        features[rows] = z
        labels[rows] = (z.float() @ weight.T).argmax(1)
    tensors = {"features": features, "labels": labels, "weight": weight}
    tensors["bias"] = torch.zeros(case.n_classes)
    names = json.dumps([str(c) for c in range(case.n_classes)])
    save_file(tensors, path, {"format": "penult-features/1", "class_names": names})


def planted(case: Case) -> torch.Tensor:
    """The features that each class reads strongly, (n_classes, planted)."""
    generator = torch.Generator().manual_seed(1)
    order = torch.rand(case.n_classes, case.n_features, generator=generator)
    return order.topk(case.planted, dim=1).indices


def measure(case: Case, path: Path) -> dict[str, Any]:
    """Seconds of every stage, the peak memory of this process, and what was found."""
    start, began = time.perf_counter(), time.process_time()
    said: dict[str, float] = {}

    def heard(name: str) -> Any:
        return lambda done, total: (
            said.setdefault(f"{name} done", time.perf_counter() - start)
            if (done >= total)
            else None
        )

    steps = []
    for step in fit_heads(Features.open(path), (), Plan(case.ks), Pace(heard)):
        steps.append(step)
        print(f"k = {step.k}: {step.seconds:.1f} s", file=sys.stderr, flush=True)
    support = planted(case)
    found = min((step for step in steps if step.k >= case.planted), key=lambda step: step.k)
    hits = sum(
        len(set(kept.tolist()) & set(wanted.tolist()))
        for kept, wanted in zip(found.head.subspaces, support, strict=True)
    )
    return {
        "read": said["samples done"],
        "first": steps[0].seconds,
        "all": time.perf_counter() - start,
        "cpu": time.process_time() - began,
        "load": os.getloadavg()[0],
        "found": hits / support.numel(),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def report(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        "# Sparse heads for many classes",
        "",
        f"`python bench/scale.py`, torch {torch.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads of {os.cpu_count()} cores. Generated float16 features "
        "in a file; every class of the dense head reads 10 features strongly. Curvature, refitted "
        "by softmax at every k, as `penult fit` does it; seconds, and of all threads together the "
        "processor's. The load is that of the whole machine at the end: above the number of "
        "cores, other work took part of the time.",
        "",
        "| n_samples × n_features, n_classes | k | read | first head | all "
        "| processor | load | peak memory (said before), GB | planted features found, % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    said = []
    for name, row in found.items():
        case = CASES[name]
        size = f"{case.n_samples:,} × {case.n_features:,}, {case.n_classes:,}"
        ks = f"{case.ks[0]}…{case.ks[-1]}" if len(case.ks) > 1 else str(case.ks[0])
        times = " | ".join(f"{row[part]:.0f}" for part in ("read", "first", "all", "cpu"))
        times += f" | {row['load']:.1f}"
        gigabytes = row["peak"] / 1e9
        sizes = case.n_samples, case.n_features, case.n_classes
        bound = memory_needed(*sizes, max(case.ks), "curvature") / 1e9
        memory = f"{gigabytes:.1f} ({bound:.1f})"
        lines.append(f"| {size} | {ks} | {times} | {memory} | {100 * row['found']:.2f} |")
        asked = [
            ("everything", row["all"], case.all_seconds, "s"),
            ("peak memory", gigabytes, case.gigabytes, "GB"),
        ]
        for what, value, most, unit in asked:
            if most is not None:
                met = "met" if value <= most else "**missed**"
                said.append(
                    f"- {met}: {case.n_classes:,} classes, {what} {value:.1f} {unit} "
                    f"(at most {most:g})"
                )
    return "\n".join([*lines, "", *said, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--work", type=Path, help="folder for the generated features")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "docs/benchmarks"
    )
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(CASES[given.one[0]], Path(given.one[1]))))
        return
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for name in given.cases:
            path = work / f"scale-{name}.safetensors"
            if not path.exists():
                generate(CASES[name], path)
            command = [sys.executable, __file__, "--one", name, str(path)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[name] = json.loads(done.stdout)
            print(name, asdict(CASES[name]), found[name], file=sys.stderr, flush=True)
    text = report(found)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "scale.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

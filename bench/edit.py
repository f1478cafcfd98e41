"""How long edits and the search for shortcuts take: 50,000 × 2,048 features, 1,000 classes.

`.venv/bin/python bench/edit.py` writes docs/benchmarks/edit.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from penult.edit.edit import Edit
from penult.edit.effects import Effect
from penult.edit.logits import LogitTable
from penult.edit.recipe import Recipe, apply_recipe
from penult.edit.registry import apply_edit
from penult.edit.setting import EditSetting
from penult.edit.suspects import described_pair, find_suspects
from penult.features.features import Features, save_features
from penult.features.groups import Attribute, Groups
from penult.features.moments import Moments
from penult.network.head import Head

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=2_048)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "edit.md")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with TemporaryDirectory() as folder:
        rows = measured(Path(folder), given.samples, given.features, given.classes)
    size = f"{given.samples:,} samples × {given.features:,} features × {given.classes:,} classes"
    lines = [
        "# Edits: how long they take",
        "",
        f"`bench/edit.py --samples {given.samples} --threads {given.threads}`: {size}, features in "
        "float32, logits in a memory map.",
        "Seconds by the clock and of the processor (all threads); medians of five, warm, but for "
        "what is done once.",
        "The machine was shared with other programs, so the clock says more than a free one would.",
        "",
        "| what | seconds | processor seconds |",
        "| --- | --- | --- |",
        *(f"| {name} | {wall:.3f} | {processor:.3f} |" for name, wall, processor in rows),
    ]
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def measured(folder: Path, n: int, d: int, n_classes: int) -> list[tuple[str, float, float]]:
    """What is timed, and how long it takes."""
    features, head = drawn(folder, n, d, n_classes)
    rows: list[tuple[str, float, float]] = []
    watch = Watch()
    LogitTable(features, head, folder / "logits.npy")
    rows.append(("logits of all samples, once", *watch.taken()))
    size = (folder / "logits.npy").stat().st_size / 1e6
    watch = Watch()
    table = LogitTable(features, head, folder / "logits.npy")
    rows.append((f"logits found again in their file of {size:.0f} MB", *watch.taken()))
    z = torch.cat(features.mapped())
    moments = Moments(
        torch.bincount(table.labels, minlength=n_classes),
        torch.zeros(n_classes, d, dtype=torch.float64),
        torch.zeros(d, d, dtype=torch.float64),
    )
    moments.sums.index_add_(0, table.labels, z.double())
    moments.products += torch.eye(d, dtype=torch.float64)
    names = [str(c) for c in range(n_classes)]
    setting = EditSetting(features, moments, names, None, head)
    edits = {
        "a feature off for one class": (Edit("off", feature=7, of="3"),),
        "a feature off for all classes": (Edit("off", feature=7),),
        "a feature capped for one class": (Edit("cap", feature=7, of="3"),),
        "a feature capped for all classes, at one bound": (Edit("cap", feature=7),),
        "twenty features off, each for one class": tuple(
            Edit("off", feature=20 + i, of=str(i)) for i in range(20)
        ),
    }
    g = torch.Generator().manual_seed(1)
    codes = torch.randint(4, (n,), generator=g)
    groups = Groups({"place": Attribute("place", ("a", "b", "c", "d"), codes)}, n)
    ids = [f"{label}/{i:06d}.jpg" for i, label in enumerate(table.labels.tolist())]
    for name, recipe in edits.items():
        after = apply_recipe(head, Recipe(recipe), setting).head
        told = partial(effect, table, after, setting, ids, None)
        rows.append((f"{name}: the whole effect, by class, and what flips", *median(told)))
        told = partial(effect, table, after, setting, ids, groups)
        rows.append((f"{name}: the same, and by group (4,000 groups)", *median(told)))
    one = Edit("off", feature=7, of="3")
    rows.append(("the edit itself", *median(partial(apply_edit, head, one, setting))))
    watch = Watch()
    found, listed = find_suspects(table, n_fitted=n)
    text = f"suspects among {found['n_pairs']:,} pairs that matter of {n_classes * d:,}"
    rows.append((text, *watch.taken()))
    watch = Watch()
    for pair, q in listed:
        described_pair(table, pair, q, 0.05, (), names, ids, groups)
    rows.append(
        (f"the {len(listed)} worst of them described, as the table shows them", *watch.taken())
    )
    return rows


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def taken(self) -> tuple[float, float]:
        """By the clock on the wall, and of the processor."""
        return time.perf_counter() - self._wall, time.process_time() - self._processor


def effect(
    table: LogitTable, after: Head, setting: EditSetting, ids: list[str], groups: Groups | None
) -> dict[str, Any]:
    return Effect.of(table, after, setting.mean).document(setting.class_names, ids, groups)


def median(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the third fastest of five, after one that does not count."""
    action()
    taken = []
    for _ in range(5):
        watch = Watch()
        action()
        taken.append(watch.taken())
    wall, processor = (sorted(times)[2] for times in zip(*taken, strict=True))
    return wall, processor


def drawn(folder: Path, n: int, d: int, n_classes: int) -> tuple[Features, Head]:
    """Rectified features around a centre for each class, and the head that reads them."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % n_classes
    centres = torch.randn(n_classes, d, generator=g)
    z = torch.randn(n, d, generator=g).add_(0.25 * centres[labels]).relu_()
    head = Head("fc", 0.15 * centres, torch.zeros(n_classes))
    file = folder / "features.safetensors"
    save_features(file, Features.of(z, labels, head.weight, head.bias))
    return Features.open(file), head


if __name__ == "__main__":
    main()

"""How long edits and the search for shortcuts take: 50,000 × 2,048 features, 1,000 classes.

`.venv/bin/python bench/edit.py` writes docs/benchmarks/edit.md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from penult.edit.balance import Calibrated
from penult.edit.edit import Edit
from penult.edit.effects import Effect
from penult.edit.logits import LogitTable
from penult.edit.overuse import Contrast
from penult.edit.recipe import Recipe, apply_recipe
from penult.edit.registry import apply_edit
from penult.edit.setting import EditSetting
from penult.edit.suspects import described_pair, find_suspects
from penult.features.features import Features
from penult.features.groups import Attribute, Groups
from penult.features.moments import Moments
from penult.features.saving import save_features
from penult.network.head import Head

Rows = list[tuple[str, float, float]]
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=2_048)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--what", nargs="+", default=list(TIMED), choices=list(TIMED))
    parser.add_argument("--folder", type=Path, help="keeps the data and what was timed so far")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "edit.md")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / "rows.json"
        rows = json.loads(kept.read_text()) if kept.is_file() else {}
        data = Data(folder, given.samples, given.features, given.classes)
        for what in given.what:
            rows[what] = TIMED[what](data)
            kept.write_text(json.dumps(rows))
    size = f"{given.samples:,} samples × {given.features:,} features × {given.classes:,} classes"
    lines = [
        "# Edits: how long they take",
        "",
        f"`bench/edit.py --samples {given.samples} --threads {given.threads}`: {size}, features in "
        "float32, logits in a memory map.",
        "Seconds by the clock and of the processor (all threads); medians of five, warm, but for "
        "what is done once.",
        f"Load of the machine at the end: {os.getloadavg()[0]:.1f}, of {os.cpu_count()} cores.",
        "",
        "| what | seconds | processor seconds |",
        "| --- | --- | --- |",
    ]
    for what in TIMED:
        for name, wall, processor in rows.get(what, []):
            lines.append(f"| {name} | {wall:.3f} | {processor:.3f} |")
    lines += [
        "",
        "The aims are 0.1 seconds for an edit's whole effect, and 60 for the search for suspects.",
    ]
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


class Data:
    """What is edited: features, a head and its logits, in a folder."""

    def __init__(self, folder: Path, n: int, d: int, n_classes: int) -> None:
        self.logits = folder / "logits.npy"
        self.features, self.head = drawn(folder / "features.safetensors", n, d, n_classes, 0)
        self.trained, _ = drawn(folder / "trained.safetensors", n, d, n_classes, 1)
        self.names = [str(c) for c in range(n_classes)]

    @cached_property
    def table(self) -> LogitTable:
        return LogitTable(self.features, self.head, self.logits)

    @cached_property
    def setting(self) -> EditSetting:
        z = torch.cat(self.features.mapped())
        n_classes, d = self.head.weight.shape
        labels = self.table.labels
        sums = torch.zeros(n_classes, d).index_add_(0, labels, z).double()
        moments = Moments(
            torch.bincount(labels, minlength=n_classes), sums, torch.eye(d, dtype=torch.float64)
        )
        return EditSetting(self.features, moments, self.names, None, self.head)

    @cached_property
    def ids(self) -> list[str]:
        return [f"{label}/{i:06d}.jpg" for i, label in enumerate(self.table.labels.tolist())]

    @cached_property
    def groups(self) -> Groups:
        n = self.features.n_samples
        codes = torch.randint(4, (n,), generator=torch.Generator().manual_seed(1))
        return Groups({"place": Attribute("place", ("a", "b", "c", "d"), codes)}, n)


def logits_timed(data: Data) -> Rows:
    """Logits, when they are computed and when they are found."""
    data.logits.unlink(missing_ok=True)
    watch = Watch()
    LogitTable(data.features, data.head, data.logits)
    rows = [("logits of all samples, once", *watch.taken())]
    size = data.logits.stat().st_size / 1e6
    watch = Watch()
    LogitTable(data.features, data.head, data.logits)
    return [*rows, (f"logits found again in their file of {size:.0f} MB", *watch.taken())]


def effects_timed(data: Data) -> Rows:
    """The whole answer to an edit."""
    edits = {
        "a feature off for one class": (Edit("off", feature=7, of="3"),),
        "a feature off for all classes": (Edit("off", feature=7),),
        "a feature capped for one class": (Edit("cap", feature=7, of="3"),),
        "a feature capped for all classes": (Edit("cap", feature=7),),
        "twenty features off, each for one class": tuple(
            Edit("off", feature=20 + i, of=str(i)) for i in range(20)
        ),
    }
    rows: Rows = []
    for name, recipe in edits.items():
        after = apply_recipe(data.head, Recipe(recipe), data.setting).head
        told = partial(effect, data, after, None)
        rows.append((f"{name}: overall, every class, and what flips", *median(told)))
    after = apply_recipe(data.head, Recipe((Edit("off", feature=7),)), data.setting).head
    told = partial(effect, data, after, data.groups)
    rows.append(("a feature off for all classes: also 4,000 groups", *median(told)))
    one = Edit("off", feature=7, of="3")
    rows.append(("the edit itself", *median(partial(apply_edit, data.head, one, data.setting))))
    return rows


def suspects_timed(data: Data) -> Rows:
    """All pairs tested, and the worst described."""
    data.table.spread()
    trained = LogitTable(data.trained, data.head)
    watch = Watch()
    contrast = Contrast(Calibrated.of(data.table), Calibrated.of(trained))
    found, listed = find_suspects(contrast)
    text = (
        f"suspects among {found['n_pairs']:,} pairs that matter of {data.head.weight.numel():,}, "
        f"next to {trained.n_samples:,} samples of the training"
    )
    rows = [(text, *watch.taken())]
    watch = Watch()
    for pair, q in listed:
        described_pair(
            data.table, pair, q, 0.05, (), data.names, data.ids, data.groups, data.setting.mean
        )
    return [*rows, (f"the worst {len(listed)} described as the table has them", *watch.taken())]


TIMED = {"logits": logits_timed, "effects": effects_timed, "suspects": suspects_timed}


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def taken(self) -> tuple[float, float]:
        """By the clock on the wall, and of the processor."""
        return time.perf_counter() - self._wall, time.process_time() - self._processor


def effect(data: Data, after: Head, groups: Groups | None) -> dict[str, Any]:
    found = Effect.of(data.table, after, data.setting.mean)
    return found.document(data.names, data.ids, groups)


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


def drawn(file: Path, n: int, d: int, n_classes: int, seed: int) -> tuple[Features, Head]:
    """Rectified features around a centre for each class, and the head that reads them."""
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(n_classes, d, generator=g)
    head = Head("fc", 0.15 * centres, torch.zeros(n_classes))
    if not file.is_file():
        g = torch.Generator().manual_seed(1 + seed)
        labels = torch.arange(n) % n_classes
        z = torch.randn(n, d, generator=g).add_(0.25 * centres[labels]).relu_()
        save_features(file, Features.of(z, labels, head.weight, head.bias))
    return Features.open(file), head


if __name__ == "__main__":
    main()

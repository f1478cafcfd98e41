"""Heads for features that no memory holds: seconds and memory, by one process and by workers.

Writes float16 features with a planted support in shards, and fits the head of ten features per
class as `penult fit` does, each way in a process of its own.

    python bench/scale_disk.py --samples 1300000 --out docs/benchmarks
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from penult.cluster.fitting import cluster_reader
from penult.cluster.session import Place
from penult.features.features import Features
from penult.features.shard_folder import Faults, ShardFolder
from penult.features.shards import Block
from penult.heads.fitting import fit_heads
from penult.heads.pace import Pace
from penult.heads.plan import Plan
from penult.network.head import Head, head_of

N_FEATURES, N_CLASSES, PLANTED, ROWS = 2048, 1000, 10, 16_384
GIGABYTES = 6.0
LOOK = 1.0  # seconds between two looks at the memory
WAYS = {"one": "one process", "two": "two workers of Ray"}


def planted() -> torch.Tensor:
    """The features that each class reads strongly, (n_classes, planted)."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(N_CLASSES, N_FEATURES, generator=generator).topk(PLANTED, dim=1).indices


def generate(n_samples: int, folder: Path) -> None:
    """Non-negative correlated features, as after a ReLU, shard by shard."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(N_FEATURES, 64, generator=generator) / 8
    weight = torch.randn(N_CLASSES, N_FEATURES, generator=generator) * 1e-3
    signs = torch.tensor([1.0, -1.0]).repeat(PLANTED // 2)
    size = torch.rand(N_CLASSES, PLANTED, generator=generator) + 0.5
    weight.scatter_(1, planted(), size * signs)
    head: Head = head_of(weight, torch.zeros(N_CLASSES))
    shards = ShardFolder(folder, head, None, torch.float16, {})
    shards.claim()
    for start in range(0, n_samples, ROWS):
        n = min(ROWS, n_samples - start)
        common = torch.randn(n, 64, generator=generator)
        z = (torch.randn(n, N_FEATURES, generator=generator) + common @ mixed.T).relu()
        labels = (z @ weight.T).argmax(1)
        shards.write(Block(z, labels, labels, [str(start + i) for i in range(n)]), Faults())
    shards.finish()


def measure(folder: Path, way: str) -> dict[str, Any]:
    """Seconds of the fit, memory of all processes together, and what was found."""
    features = Features.open(folder)
    with ExitStack() as held:
        reader = None
        begun = time.perf_counter()
        if way == "two":
            reader = held.enter_context(cluster_reader(Place(n_workers=2, device="cpu")))
        up, begun = time.perf_counter() - begun, time.perf_counter()
        said: dict[str, float] = {}

        def heard(name: str) -> Any:
            def say(done: int, total: int) -> None:
                if done >= total:
                    said.setdefault(name, time.perf_counter() - begun)

            return say

        (step,) = fit_heads(features, (), Plan((PLANTED,)), Pace(heard), reader)
        seconds = time.perf_counter() - begun
    hits = sum(
        len(set(kept.tolist()) & set(wanted.tolist()))
        for kept, wanted in zip(step.head.subspaces, planted(), strict=True)
    )
    return {
        "up": up,
        "read": said.get("samples", 0.0),
        "seconds": seconds,
        "found": hits / (N_CLASSES * PLANTED),
        "load": os.getloadavg()[0],
        "values": step.head.values.detach().abs().sum().item(),
    }


class Memory:
    """The memory of a process and all that it has begun, looked at now and then; their peaks.

    Attributes:
        peaks: bytes at most at one time: "private" to the fit's processes, "resident" in them (with
            the files that they read, as far as the system keeps them, those of several processes
            counted for each), and "Ray" of what Ray itself runs, which is in neither.
        processor: seconds of them all.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.peaks = dict.fromkeys(("private", "resident", "Ray"), 0)
        self._seconds: dict[int, float] = {}
        self._root = psutil.Process(process.pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def processor(self) -> float:
        return sum(self._seconds.values())

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK):
            now = dict.fromkeys(self.peaks, 0)
            with suppress(psutil.Error):
                for one in (self._root, *self._root.children(recursive=True)):
                    with suppress(psutil.Error):
                        self._look(one, now)
            self.peaks = {name: max(self.peaks[name], now[name]) for name in now}

    def _look(self, one: psutil.Process, now: dict[str, int]) -> None:
        memory, times = one.memory_full_info(), one.cpu_times()
        self._seconds[one.pid] = times.user + times.system
        if one == self._root or "ray::Holder" in " ".join(one.cmdline()):
            now["private"] += memory.uss
            now["resident"] += memory.rss
        else:
            now["Ray"] += memory.uss


def report(n_samples: int, found: dict[str, dict[str, Any]]) -> str:
    on_disk = n_samples * N_FEATURES * 2 / 1e9
    lines = [
        "# Heads for features on disk",
        "",
        f"`python bench/scale_disk.py --samples {n_samples}`, torch {torch.__version__}, "
        f"{platform.machine()}, {os.cpu_count()} cores, one thread for each process. "
        f"{n_samples:,} × {N_FEATURES:,} float16 features in shards ({on_disk:.1f} GB), "
        f"{N_CLASSES:,} classes, each of which reads {PLANTED} features strongly; selection by "
        f"curvature and softmax refit at k = {PLANTED}. Beyond 2 GB of memory features are read "
        "from the disk anew in each pass. Memory is the most at any time of this process and its "
        "workers together, looked at every second: private to them, and resident (with what the "
        "system keeps in memory of the files that they read, and gives back when others need it); "
        "Ray's own processes stand apart. The load is that of the whole machine at the end: above "
        "the number of cores, other work took part of the time.",
        "",
        "| by | begin, s | first reading, s | all, s | of the processor, s | private, GB | "
        "resident, GB | Ray's own, GB | planted found, % | load |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    said = []
    for way, row in found.items():
        private, resident, own = (row["memory"][name] / 1e9 for name in row["memory"])
        lines.append(
            f"| {WAYS[way]} | {row['up']:.0f} | {row['read']:.0f} | {row['seconds']:.0f} | "
            f"{row['processor']:.0f} | {private:.1f} | {resident:.1f} | {own:.1f} | "
            f"{100 * row['found']:.2f} | {row['load']:.1f} |"
        )
        met = "met" if resident + own <= GIGABYTES else "**missed**"
        said.append(
            f"- {met}: {WAYS[way]}, {resident + own:.1f} GB resident with Ray's own (at most "
            f"{GIGABYTES:g})"
        )
    if len(found) == 2:
        one, two = (found[way]["values"] for way in WAYS)
        said.append(f"- the sums of all weights differ by {abs(one - two) / one:.1e} of themselves")
    return "\n".join([*lines, "", *said, ""])


def measured(folder: Path, way: str) -> dict[str, Any]:
    """A way in a process of its own, and the memory that it took."""
    command = [sys.executable, __file__, "--one", str(folder), way]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    memory = Memory(process)
    said, _ = process.communicate()
    memory.end()
    if process.returncode:
        raise SystemExit(f"{WAYS[way]} ended with {process.returncode}")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return {**found, "memory": memory.peaks, "processor": memory.processor}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_300_000)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--work", type=Path, help="keeps the generated features for another time")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "docs/benchmarks"
    )
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one:
        print(json.dumps(measure(Path(given.one[0]), given.one[1])))
        return
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.work or Path(temporary)) / "features"
        if not (folder / "index.json").exists():
            generate(given.samples, folder)
        for way in given.ways:
            found[way] = measured(folder, way)
            print(way, found[way], file=sys.stderr, flush=True)
    text = report(given.samples, found)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "scale_disk.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

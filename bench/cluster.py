"""What a cluster's workers cost and gain: one and two of them against a single process.

Passes CIFAR-10 images (PNG in a zip, decoding included) through ResNet-20 by one process, by one
worker of Ray and by two, in turn, several times; kills a worker in the middle; compares the bytes
of the runs; and weighs the sums that cross the network. Then says on paper what ImageNet and a
hundred million images take.

    python bench/cluster.py ../shared/data --out docs/benchmarks
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import pickle
import platform
import signal
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import torch

from cluster_processor import by_kind, processor
from cluster_reading import FILES, reading, write
from penult.cli.option_groups import ImageOptions, NetworkOptions, PassOptions
from penult.cli.subject import Subject, open_subject
from penult.cluster.packed import packed
from penult.cluster.passing import cluster_fill
from penult.cluster.session import Place
from penult.data.source import ImageSource
from penult.features.collect import network_shards
from penult.features.shard_folder import ShardFolder
from penult.features.shards import Block
from penult.network.head import head_of
from penult.runs.filling import Fill, fill_here
from penult.runs.parts import Part
from penult.runs.sums import Summing

HERE = Path(__file__).parent
RESNET20 = f"{HERE / 'cifar_resnet.py'}:resnet20"
OVERHEAD, SCALING = 0.05, 1.8
BATCH = 256
_subject: Subject  # of a process of `limit`


@dataclass
class Outcome:
    """Seconds of one pass, processor seconds by kind of process, and what it wrote."""

    seconds: float
    processor: Mapping[str, float]
    contents: dict[str, bytes]
    loads: float


def opens(shared: Path, n_samples: int) -> Callable[[], Subject]:
    weights = str(shared / "checkpoints" / "resnet20-12fca82f.th")
    options = NetworkOptions(weights=weights), ImageOptions(limit=n_samples), PassOptions(BATCH)
    data = str(shared / "cifar10" / "train.zip")
    return partial(open_subject, RESNET20, data, str(shared / "cifar10" / "test.zip"), *options)


def filled(fill: Fill, subject: Subject, name: str, folder: Path) -> Outcome:
    """Pass one part of the images through the network."""
    images, how = subject.part(name)
    summing = Summing(subject.head)
    shards = ShardFolder(folder, subject.head, subject.class_names, how.store, {"a": 1})
    source = ImageSource(images, subject.transform, how)
    here = network_shards(subject.network, source, subject.head, how)
    part = Part({}, images.fingerprint, len(images), here)
    begun, before = time.perf_counter(), processor()
    sums = fill(name, part, shards, summing)
    seconds, used = time.perf_counter() - begun, dict(by_kind(before))
    assert sums.evidence is not None
    sums.evidence.moments.save(folder / "moments.safetensors")
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return Outcome(seconds, used, found, os.getloadavg()[0])


@contextmanager
def workers(
    open_: Callable[[], Subject], subject: Subject, n: int, warm: list[float]
) -> Iterator[Callable[[float | None], Outcome]]:
    """What makes passes by workers that are warm, and kills one of them after some seconds."""
    with tempfile.TemporaryDirectory() as made, ExitStack() as held:
        begun, names = time.perf_counter(), count()
        fill = held.enter_context(cluster_fill(Place(n_workers=n, device="cpu"), open_, subject))
        filled(fill, subject, "eval", Path(made) / "eval")
        warm.append(time.perf_counter() - begun)

        def by_workers(kill: float | None = None) -> Outcome:
            killed: list[int] = []
            timer = threading.Timer(kill or 0, kill_one, [killed])
            if kill is not None:
                timer.start()
            outcome = filled(fill, subject, "train", Path(made) / f"train{next(names)}")
            timer.cancel()
            if kill is not None and not killed:
                raise SystemExit("the pass was over before a worker could be killed: more --images")
            return outcome

        yield by_workers


def kill_one(killed: list[int]) -> None:
    """End one of the workers, in the middle of a shard; notes its number."""
    for process in psutil.process_iter(["name", "cmdline"]):
        if "ray::make_shards" in " ".join(process.info["cmdline"] or []):
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)
            return


def _prepare(open_: Callable[[], Subject]) -> None:
    global _subject
    torch.set_num_threads(1)
    _subject = open_()


def _own_pass(_: int) -> float:
    with tempfile.TemporaryDirectory() as made:
        return filled(fill_here, _subject, "train", Path(made) / "train").seconds


def limit(open_: Callable[[], Subject], rounds: int) -> float:
    """How many times as much two processes do as one, if neither knows of the other."""
    with multiprocessing.get_context("spawn").Pool(2, _prepare, (open_,)) as pool:
        pool.map(_own_pass, range(2), chunksize=1)  # warm
        gains = []
        for _ in range(rounds):
            alone = pool.apply(_own_pass, (0,))
            gains.append(2 * alone / max(pool.map(_own_pass, range(2), chunksize=1)))
    return statistics.median(gains)


def weight_of_sums(n_features: int, n_classes: int) -> tuple[int, int]:
    """Bytes of one span's sums as they are handed over, and the samples of the span."""
    generator = torch.Generator().manual_seed(0)
    head = head_of(torch.randn(n_classes, n_features, generator=generator), torch.zeros(n_classes))
    summing = Summing(head)
    sums = summing.zeros()
    rows = 2048
    for _ in range(summing.span):
        z = torch.randn(rows, n_features, generator=generator).relu()
        labels = torch.randint(0, n_classes, (rows,), generator=generator)
        sums.add(Block(z, labels, labels, []))
    return len(pickle.dumps(packed(sums), protocol=5)), rows * summing.span


def paper(rate: float) -> list[str]:
    """Minutes and bytes of large passes, given what one GPU does."""
    lines = [
        "| images | GPUs | minutes | float16 features on disk | sums handed over | images read |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    sums, n_span = weight_of_sums(2048, 1000)
    for n, what in ((1_281_167, "1.28 million"), (100_000_000, "100 million")):
        for n_gpus in (1, 8, 64):
            hours = n / (rate * n_gpus) / 3600
            on_disk = n * (2048 * 2 + 64) / 1e9
            crossing = n / n_span * sums / 1e9
            lines.append(
                f"| {what} | {n_gpus} | {60 * hours:,.1f} | {on_disk:,.1f} GB "
                f"| {crossing:,.1f} GB | {n * 110e3 / 1e12:,.2f} TB |"
            )
    share = sums / (n_span * 2048 * 2)
    return [
        *lines,
        "",
        f"Sums of {n_span:,} samples take {sums / 1e6:.0f} MB: {share:.1f} times their float16 "
        "features.",
    ]


def report(found: dict[str, Any], n_samples: int, rate: float) -> str:
    median = {name: statistics.median(o.seconds for o in found[name]) for name in ("0", "1", "2")}
    ratios = [b.seconds / a.seconds for a, b in zip(found["0"], found["1"], strict=True)]
    gains = [a.seconds / b.seconds for a, b in zip(found["1"], found["2"], strict=True)]
    overhead, scaling = statistics.median(ratios) - 1, statistics.median(gains)
    loads = [o.loads for name in ("0", "1", "2") for o in found[name]]
    same = all(
        o.contents == found["0"][0].contents
        for name in ("0", "1", "2", "killed")
        for o in found[name]
    )

    def used(name: str, kind: str) -> float:
        return float(statistics.median(o.processor.get(kind, 0.0) for o in found[name]))

    lines = [
        "# Workers of a cluster",
        "",
        f"`python bench/cluster.py`, torch {torch.__version__}, Ray {found['ray']}, "
        f"{platform.machine()}, {os.cpu_count()} cores, one thread for each process. "
        f"{n_samples:,} CIFAR-10 images, decoded from PNG in a zip, through ResNet-20 in batches "
        f"of {BATCH}; features and sums as `penult analyze` keeps them. Medians of "
        f"{len(found['0'])} rounds, workers warm. The load of the machine was {min(loads):.1f} to "
        f"{max(loads):.1f}: above the number of cores, other work took part of the time, and "
        "seconds say little; those of the processor say more. Ray's own processes take some for "
        "each second that passes, whatever is done.",
        "",
        "| the pass by | seconds, median | least … most | processor seconds: the command | "
        "workers | Ray's own |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    names = {"0": "this process", "1": "one worker", "2": "two workers"}
    names["killed"] = "two workers, one killed in the middle"
    for name, what in names.items():
        seconds = sorted(o.seconds for o in found[name])
        lines.append(
            f"| {what} | {statistics.median(seconds):.1f} | {seconds[0]:.1f} … {seconds[-1]:.1f} "
            + "".join(f"| {used(name, kind):.1f} " for kind in ("command", "workers", "Ray"))
            + "|"
        )

    work = used("1", "command") + used("1", "workers")

    def met(good: bool) -> str:
        return "met" if good else "**missed**"

    lost = statistics.median(o.seconds for o in found["killed"]) - median["2"]
    lines += [
        "",
        f"- {met(overhead <= OVERHEAD)}: one worker against none, {100 * overhead:+.1f} % "
        f"(at most {100 * OVERHEAD:.0f} %); of processor seconds, which other work disturbs less, "
        f"{100 * (work / used('0', 'command') - 1):+.1f} %",
        f"- {met(scaling >= SCALING)}: two workers against one, {scaling:.2f} times as fast "
        f"(at least {SCALING:g} on two quiet cores); two processes that know nothing of each "
        f"other, each with such a pass of its own, do {found['limit']:.2f} times as much as one: "
        "the most that two workers can reach on this machine",
        f"- {met(same)}: shards and moments are the same, byte for byte, in all rounds",
        f"- a killed worker: {lost:+.1f} s; what it had not written is done again, by a worker "
        "that loads the network anew",
        f"- until the workers are warm (Ray begun, torch and the network loaded, "
        f"{len(found['warm'])} times): {statistics.median(found['warm']):.0f} s",
        "",
        "## Reading, by Ray Data and by penult's own tasks",
        "",
        f"The same {n_samples:,} images in {FILES} WebDataset shards and in as many Parquet files, "
        "decoded and normalised in batches by two workers that are warm; no network. Penult's "
        "tasks take 2,048 images each, whatever the files, and name an image that cannot be read; "
        "Ray Data's take a file each, and end with it.",
        "",
        *found["reading"],
        "",
        "## On paper",
        "",
        f"A network of 2,048 features and 1,000 classes, at {rate:,.0f} images a second for each "
        "GPU (an assumption, of the order of ResNet-50 in half precision with 16 cores that "
        "decode for each GPU; put in what the command says of yours), images of 110 kB. Nothing "
        "else crosses the network: each worker reads the weights and its images by itself. "
        f"64 GPUs ask for {64 * rate * 110e3 / 1e9:.1f} GB/s of images, so that the storage may be "
        "slower than they are.",
        "",
        *paper(rate),
        "",
    ]
    return "\n".join(lines)


def tell(found: dict[str, Any]) -> None:
    names = "0", "1", "2", "killed"
    print({name: [round(o.seconds, 1) for o in found[name]] for name in names}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--images", type=int, default=6144)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=2000.0, help="images a second on one GPU")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "docs/benchmarks"
    )
    given = parser.parse_args()
    import ray

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    open_ = opens(given.shared.resolve(), given.images)
    subject = open_()
    found: dict[str, Any] = {name: [] for name in ("0", "1", "2", "killed", "warm")}
    found["ray"] = ray.__version__
    found["limit"] = limit(open_, given.rounds)
    print(f"two processes do {found['limit']:.2f} times as much as one", flush=True)
    rounds = range(given.rounds)
    with workers(open_, subject, 1, found["warm"]) as one:
        for _ in rounds:
            with tempfile.TemporaryDirectory() as made:
                found["0"].append(filled(fill_here, subject, "train", Path(made) / "train"))
            found["1"].append(one(None))
            tell(found)
    with workers(open_, subject, 2, found["warm"]) as two, tempfile.TemporaryDirectory() as made:
        found["2"] = [two(None) for _ in rounds]
        tell(found)
        found["reading"] = reading(
            write(subject.images, Path(made) / "data"), given.images, min(2, given.rounds)
        )
        found["killed"].append(two(min(o.seconds for o in found["2"]) / 2))
        tell(found)
    text = report(found, given.images, given.rate)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "cluster.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

"""Reading by Ray Data and by penult's own tasks: images decoded to tensors by workers of Ray.

Both read the same PNG images of CIFAR-10 from the same WebDataset shards and the same Parquet
files, and end with the same normalised batches in the workers; nothing is passed through a network.
Part of `bench/cluster.py`.
"""

from __future__ import annotations

import io
import statistics
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from PIL import Image

from cluster_processor import processor, spent
from penult.data.open import open_data
from penult.data.source import ImageSource, Pass
from penult.data.transform import Transform

FILES, BATCH = 8, 256
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def write(images: Any, folder: Path) -> dict[str, str]:
    """The first images of some data in shards and tables; what names them, by form."""
    folder.mkdir(parents=True)
    for part, rows in enumerate(np.array_split(np.arange(len(images)), FILES)):
        raws = []
        for i in map(int, rows):
            into = io.BytesIO()
            images.load(i).save(into, "PNG")
            raws.append(into.getvalue())
        labels = [int(images.labels[i]) for i in rows]
        with tarfile.open(folder / f"part-{part:03}.tar", "w") as archive:
            for i, raw, label in zip(rows, raws, labels, strict=True):
                for ending, content in (("png", raw), ("cls", str(label).encode())):
                    info = tarfile.TarInfo(f"{i:06}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        table = pa.table({"image": raws, "label": labels, "id": [f"{i:06}" for i in rows]})
        pq.write_table(table, folder / f"part-{part:03}.parquet", row_group_size=200)
    last = FILES - 1
    return {
        "WebDataset": str(folder / f"part-{{000..{last:03}}}.tar"),
        "Parquet": str(folder / f"part-{{000..{last:03}}}.parquet"),
    }


def ours(spec: str) -> int:
    """By tasks over penult's own shards, as `penult analyze --cluster` cuts them."""
    n = len(open_data(spec))
    rows = BATCH * Pass(batch_size=BATCH).batches_per_shard
    read = ray.remote(_read)
    tasks = [read.remote(spec, first) for first in range(-(-n // rows))]
    return int(sum(ray.get(tasks)))


_opened: dict[str, Any] = {}  # of this worker: data are opened once


def _read(spec: str, shard: int) -> int:
    torch.set_num_threads(1)
    if spec not in _opened:
        _opened[spec] = open_data(spec)
    transform = Transform(mean=MEAN, std=STD)
    how = Pass(batch_size=BATCH)
    source = ImageSource(_opened[spec], transform, how)
    n, per = 0, how.batches_per_shard
    for batch in source.batches(shard * per, (shard + 1) * per):
        n += len(source.inputs(batch, torch.device("cpu")))
    return n


def ray_data(spec: str) -> int:
    """By Ray Data, which cuts by files."""
    webdataset = spec.endswith(".tar")
    stem, ending = spec.split("{")[0], spec.rpartition(".")[2]
    paths = [f"{stem}{i:03}.{ending}" for i in range(FILES)]
    if webdataset:
        found = ray.data.read_webdataset(paths, decoder=None)
    else:
        found = ray.data.read_parquet(paths, columns=["image", "label", "id"])
    decoded = found.map_batches(
        partial(_decoded, "png" if webdataset else "image"),
        batch_size=BATCH,
        batch_format="pyarrow",
    )
    return int(sum(int(row["n"]) for row in decoded.take_all()))


def _decoded(column: str, batch: Any) -> Any:
    torch.set_num_threads(1)
    raws = batch[column].to_pylist()
    images = [np.array(Image.open(io.BytesIO(raw)).convert("RGB")) for raw in raws]
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(255)
    x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return pa.table({"n": [len(x)]})


WAYS: dict[str, Callable[[str], int]] = {"penult's tasks": ours, "Ray Data": ray_data}


def reading(specs: dict[str, str], n_images: int, rounds: int) -> list[str]:
    """A table of both ways; Ray is running."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    lines = [
        "| form | by | images a second, median | least … most | processor seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for form, spec in specs.items():
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
        for i in range(rounds + 1):
            for name, way in WAYS.items():
                begun, before = time.perf_counter(), processor()
                n = way(spec)
                took = time.perf_counter() - begun
                if n != n_images:
                    raise SystemExit(f"{name} has read {n:,} of {n_images:,} images")
                if i:  # the first time workers load their libraries
                    found[name].append((n / took, spent(before)))
        for name, rows in found.items():
            rates = sorted(rate for rate, _ in rows)
            used = statistics.median(seconds for _, seconds in rows)
            lines.append(
                f"| {form} | {name} | {statistics.median(rates):,.0f} | {rates[0]:,.0f} … "
                f"{rates[-1]:,.0f} | {used:.1f} |"
            )
    return lines

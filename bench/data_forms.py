"""The same images in every form of data: whether the features are the same, and what a form costs.

Writes the evaluation images of a real ImageNet network as a folder, tars, tables, shards and a
saved Hugging Face data set, runs the whole pass over each, and compares the bytes of the features
with those of the zip and the time with the bare forward loop over the folder, run in turn.

    python bench/data_forms.py ../shared/data --out docs/benchmarks
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import platform
import statistics
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from collect import bare, passed
from penult.data.open import open_data
from penult.data.source import ImageSource, Pass
from penult.network.load import load_model

LIMIT = 0.05
HERE = Path(__file__).parent


def write_forms(archive: Path, root: Path, n_samples: int) -> dict[str, str]:
    """The images of a zip in all forms, in the zip's order; what opens each."""
    with zipfile.ZipFile(archive) as whole:
        names = [name for name in whole.namelist() if not name.endswith("/")]
        names.sort(key=lambda name: name.replace("/", "\0"))
        names = names[:n_samples]
        images = {name: whole.read(name) for name in names}
    labels = {name: name.split("/")[-2] for name in names}
    for name, content in images.items():
        path = root / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for ending, mode in ((".tar", "w"), (".tar.gz", "w:gz")):
        write_tar(root / f"folders{ending}", mode, images)
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows((f"folder/{name}", labels[name]) for name in names)
    table = pa.table(
        {
            "image": [{"bytes": images[name], "path": name} for name in names],
            "label": [labels[name] for name in names],
        }
    )
    pq.write_table(table, root / "images.parquet", row_group_size=200)
    per_shard = -(-len(names) // 3)
    for shard in range(3):
        members = {}
        for i, name in list(enumerate(names))[shard * per_shard : (shard + 1) * per_shard]:
            members[f"{i:06}.jpg"] = images[name]
            members[f"{i:06}.cls"] = labels[name].encode()
        write_tar(root / f"shard-{shard:03}.tar", "w", members)
    import datasets

    datasets.disable_progress_bars()
    saved = datasets.Dataset.from_parquet(str(root / "images.parquet"), cache_dir=str(root / "c"))
    saved.cast_column("image", datasets.Image()).save_to_disk(root / "saved")
    return {
        "zip": str(write_zip(root / "images.zip", images)),
        "folder": str(root / "folder"),
        "tar": str(root / "folders.tar"),
        "tar.gz": str(root / "folders.tar.gz"),
        "CSV of paths": str(root / "labels.csv"),
        "Parquet with bytes": str(root / "images.parquet"),
        "WebDataset shards": str(root / "shard-{000..002}.tar"),
        "Hugging Face, saved": str(root / "saved"),
    }


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, mode: Any, files: dict[str, bytes]) -> None:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def whole(model: nn.Module, source: ImageSource, how: Pass) -> tuple[float, str]:
    """Seconds of the pass with its features written, and a hash of these."""
    digest = hashlib.blake2b(digest_size=8)
    seconds = passed(
        model, source, how, lambda block: digest.update(block.features.numpy().tobytes())
    )
    return seconds, digest.hexdigest()


def report(name: str, rows: dict[str, dict[str, Any]], n_samples: int, rounds: int) -> str:
    same = len({row["digest"] for row in rows.values()}) == 1
    lines = [
        "# Forms of data: the same features, and what each costs",
        "",
        f"{n_samples:,} photographs and {name}. "
        + ("The features are the same to the last bit in every form. " if same else "")
        + "*Opening* is what happens before the first image: listing, and reading the labels. "
        "*Over the bare loop* says how much longer the whole pass takes, features written, than a "
        f"plain forward loop over the same form (median of {rounds} pairs, run in turn). "
        f"Target: at most {100 * LIMIT:.0f} %.",
        "",
        f"`python bench/data_forms.py ../shared/data`, torch {torch.__version__}, "
        f"{platform.machine()}, {torch.get_num_threads()} threads, {os.cpu_count()} cores with a "
        f"load of {os.getloadavg()[0]:.1f}.",
        "",
        "| form | opening, s | bare loop, s | whole pass, s | over the bare loop | features |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for form, row in rows.items():
        lines.append(
            f"| {form} | {row['opening']:.2f} | {row['bare']:.2f} | {row['whole']:.2f} "
            f"| {100 * row['overhead']:+.1f} % | `{row['digest']}` |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder with imagenet/")
    parser.add_argument("--network", default="mobilenet_v1_025")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    imagenet = arguments.shared / "imagenet"
    loaded = load_model(f"{imagenet / 'networks.py'}:{arguments.network}")
    model, transform = loaded.model, loaded.transform
    assert transform is not None
    how = Pass(batch_size=100)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        forms = write_forms(imagenet / "eval.zip", Path(name), arguments.images)
        for form, spec in forms.items():
            start = time.perf_counter()
            data = open_data(spec)
            opening = time.perf_counter() - start
            source = ImageSource(data, transform, how)
            bare(model, source)
            pairs = [
                (bare(model, source), *whole(model, source, how)) for _ in range(arguments.rounds)
            ]
            rows[form] = {
                "opening": opening,
                "bare": statistics.median(a for a, _, _ in pairs),
                "whole": statistics.median(b for _, b, _ in pairs),
                "overhead": statistics.median(b / a for a, b, _ in pairs) - 1,
                "digest": pairs[0][2],
            }
            print(form, rows[form], flush=True)
    text = report(arguments.network, rows, len(data), arguments.rounds)
    print(text)
    (arguments.out / "data_forms.md").write_text(text, encoding="utf-8")
    digests = {row["digest"] for row in rows.values()}
    missed = [form for form, row in rows.items() if row["overhead"] > LIMIT]
    print(json.dumps({"same": len(digests) == 1, "missed": missed}))


if __name__ == "__main__":
    main()

"""What users' data, networks and files do to penult: every attempt, and what came of it.

`python bench/robustness.py` runs the cases beside the project (../shared/cases, if they are there)
and the attempts of this file, and writes docs/benchmarks/robustness.md. `--kept FILE` keeps each
outcome there as soon as it is known, and what is kept is not run again; `--only NAME,…` runs these,
kept or not.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from penult.data.class_list import class_list
from penult.data.classes import align_classes
from penult.data.open import batches, open_data
from penult.data.transform import Transform
from penult.errors import InputError
from penult.features.features import Features
from penult.runs.analyze import analyze_features

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT.parent / "shared" / "cases"
PAGE = ROOT / "docs" / "benchmarks" / "robustness.md"
LIMIT = 400
SHOWN = 300
# Cases that analyse several things into one --out, which alone would be refused.
FRESH = {
    "checkpoint-reparametrised",
    "cosine-heads",
    "grey-networks",
    "one-logit",
    "tensor-layout",
    "wordnet-folders",
}

HEIC = b"\0\0\0\x18ftypheic" + bytes(40)
RAW = Transform(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

Row = tuple[str, str]  # what was tried, what came


def run_case(path: Path) -> list[Row]:
    """Run a script that prints `$ penult …`, what penult said, and how it ended."""
    with tempfile.TemporaryDirectory() as place:
        try:
            done = subprocess.run(
                [sys.executable, str(path)],
                capture_output=True,
                text=True,
                timeout=LIMIT,
                env={
                    **os.environ,
                    "PENULT": str(programs(Path(place), fresh=path.stem in FRESH)),
                    "OMP_NUM_THREADS": "1",
                },
            )
        except subprocess.TimeoutExpired:
            return [("the whole case", f"did not end within {LIMIT} s")]
    rows: list[Row] = []
    said: list[str] = []
    command = "from Python"
    for line in [*done.stdout.splitlines(), "$"]:
        if not line.startswith("$"):
            said.append(line.strip())
            continue
        if rows or said:
            rows.append((command, outcome(said)))
        command, said = line.removeprefix("$ "), []
    return rows or [("the whole case", f"ended with {done.returncode} and printed nothing")]


def programs(place: Path, *, fresh: bool) -> Path:
    """Write the program penult, and Python beside it; `fresh` replaces what analyze finds."""
    here = Path(sys.executable)
    added = '[ "$1" = analyze ] && set -- "$@" --overwrite' if fresh else ":"
    for name, first in (("penult", added), ("python", ":")):
        (place / name).write_text(f'#!/bin/sh\n{first}\nexec "{here.with_name(name)}" "$@"\n')
        (place / name).chmod(0o755)
    return place / "penult"


def outcome(said: list[str]) -> str:
    """What a command came to, on one line: how it ended, then the lines that say why."""
    ends = [line for line in said if line.startswith("exit ")]
    status = ends[-1].split(",")[0] if ends else "no exit status"
    told = [
        line
        for line in said
        if line.startswith(("Dense", "Samples", "penult:", "Traceback")) or "left out" in line
        if not line.startswith("Samples") or "left out" in line
    ]
    if not ends:
        told = said
    elif "Traceback" in " ".join(said):
        told = said[-3:]
    lines = [re.sub(r"\s+", " ", line.removeprefix("penult: ")) for line in told]
    return "; ".join([status, *lines] if ends else lines)


def picture(kind: str = "PNG", size: tuple[int, int] = (8, 6), **options: Any) -> bytes:
    """A small image's file."""
    stream = io.BytesIO()
    Image.new("RGB", size, (200, 10, 60)).save(stream, kind, **options)
    return stream.getvalue()


def folder(root: Path, files: dict[str, bytes]) -> Path:
    """Files below a folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def looked_at(data: Any, transform: Transform = RAW) -> str:
    """How many images are read, and what is said of them."""
    opened = open_data(data)
    found = list(batches(opened, transform, batch_size=64))
    faults = [f"{fault.id} {fault.reason}" for batch in found for fault in batch.faults]
    n = sum(len(batch.images) for batch in found)
    return "; ".join([f"{n} images read", *faults[:2], *opened.notes])


def of_folder(files: dict[str, bytes]) -> Callable[[Path], str]:
    """An attempt: a folder of these files."""
    return lambda root: looked_at(folder(root / "data", files))


def bomb(root: Path) -> str:
    """A zip entry of few bytes that inflates to very many."""
    with zipfile.ZipFile(root / "bomb.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a/bomb.bmp", bytes(1 << 28))
        archive.writestr("a/1.png", picture())
    return looked_at(root / "bomb.zip")


def backslashes(root: Path) -> str:
    """An archive as some programs of Windows write it."""
    with zipfile.ZipFile(root / "w.zip", "w") as archive:
        for name in ("a\\1.png", "b\\2.png"):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, picture())
    return f"classes {', '.join(open_data(root / 'w.zip').class_names or ())}"


def strip(root: Path) -> str:
    """An image of one column."""
    data = folder(root / "data", {"a/1.png": picture(size=(1, 3000))})
    return looked_at(data, Transform(resize=256, crop=224))


def placed(names: list[str], n_classes: int, given: str | None = None) -> Callable[[Path], str]:
    """An attempt: class folders of these names for a network of so many classes."""

    def attempt(root: Path) -> str:
        data = open_data(folder(root / "data", {f"{n}/{n}.png": picture() for n in names}))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = align_classes(n_classes, data, given=given and class_list(given))
        assert data.labels is not None
        order = [found.names[label] for label in data.labels]
        places = f"{', '.join(names)} are classes {', '.join(map(str, data.labels))}"
        return "; ".join([f"{places}, called {', '.join(order)}", *(str(w.message) for w in said)])

    return attempt


def few(n_samples: int, n_classes: int, n_features: int = 64) -> Callable[[Path], str]:
    """An attempt: an analysis, with heads, of very few samples."""

    def attempt(root: Path) -> str:
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(n_classes, n_features, generator=generator)
        labels = torch.arange(n_samples) % n_classes
        noise = torch.randn(n_samples, n_features, generator=generator)
        features = Features.of((noise + 3 * weight[labels]).relu(), labels, weight)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            path = analyze_features(features, None, root / "run").summary()["path"]
        heads = f"heads of {', '.join(str(row['k']) for row in path)} features per class"
        return "; ".join([heads, *(str(warning.message) for warning in said)])

    return attempt


def items(make: Callable[[int], Any]) -> Callable[[Path], str]:
    """An attempt: a data set of such items."""
    return lambda _: looked_at([make(i) for i in range(6)])


IMAGE = np.zeros((6, 8, 3), np.uint8)
ATTEMPTS: dict[str, Callable[[Path], str]] = {
    "a zip entry of 200 bytes that inflates to 256 MiB": bomb,
    "a zip with backslashes": backslashes,
    "an image of 1 × 3000 pixels, resized and cropped": strip,
    "a folder of train/ and val/": of_folder(
        {f"{part}/{name}/1.png": picture() for part in ("train", "val") for name in "ab"}
    ),
    "train/cat/… beside test/1.png": of_folder(
        {"train/cat/1.png": picture(), "train/dog/1.png": picture(), "test/1.png": picture()}
    ),
    "a class folder @eaDir": of_folder({"a/1.png": picture(), "@eaDir/1.jpg": picture("JPEG")}),
    "a photograph named .jpg that is HEIC": of_folder({"a/1.png": picture(), "a/2.jpg": HEIC}),
    "images without an ending": of_folder({"a/1": picture(), "b/2": picture("JPEG")}),
    "an image named .png_": of_folder({"a/1.png": picture(), "a/2.png_": picture()}),
    "a camera's raw picture": of_folder({"a/1.png": picture(), "a/2.cr2": picture("TIFF")}),
    "a text named .png": of_folder({"a/1.png": picture(), "a/2.png": b"no image"}),
    "a labels.csv beside the images": of_folder({"a/1.png": picture(), "a/labels.csv": b"1"}),
    "class folders 1, 2, 10": placed(["1", "2", "10"], 3),
    "class folders 1, 2, 10 with --class-names natural": placed(["1", "2", "10"], 3, "natural"),
    "WordNet folders for 1,000 classes": placed(["n01440764", "n03028079"], 1000),
    "two folders for five classes": placed(["a", "b"], 5),
    "samples (label, image)": items(lambda i: (i % 2, IMAGE)),
    "samples (image, label, path)": items(lambda i: (IMAGE, i % 2, "x.png")),
    "samples as dicts {img, fine_label}": items(lambda i: {"img": IMAGE, "fine_label": i % 2}),
    "samples with a vector of labels": items(lambda i: (IMAGE, [0, 1, 0])),
    "samples with two labels at once": items(lambda i: (IMAGE, [0, 1, 1])),
    "samples with words as labels": items(lambda i: (IMAGE, "cat")),
    "one sample per class, 10 classes": few(10, 10),
    "three samples of two classes": few(3, 2),
    "a dict without an image": items(lambda i: {"text": "x", "label": 1}),
}


def attempt(name: str) -> list[Row]:
    """Try one of `ATTEMPTS`."""
    with tempfile.TemporaryDirectory() as root:
        try:
            came = ATTEMPTS[name](Path(root))
        except InputError as error:
            came = f"error: {error}"
        return [(name, came.replace(f"{root}/", ""))]


def page(kept: dict[str, list[Row]]) -> str:
    """The Markdown page of all outcomes."""
    lines = [
        "# Robustness: what was tried, and what came of it",
        "",
        "Each row is something that users do, run as they would, with penult's own words on what "
        "came of it. Where a case analyses several things into one `--out`, `--overwrite` is "
        "added.",
        "Written by `python bench/robustness.py`.",
        "",
        "| case | tried | what came |",
        "| --- | --- | --- |",
    ]
    for case, rows in kept.items():
        for tried, came in rows:
            cells = (case if case not in ATTEMPTS else "data", _cell(tried), _cell(came))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    line = re.sub(r"/tmp/[\w.-]+/?", "", " ".join(text.split())).replace("|", "\\|")
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def main() -> None:
    """Run what is asked for and write the page of all that is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names of cases, or `data`, between commas")
    parser.add_argument("--kept", type=Path, help="JSON file of the outcomes of earlier runs")
    given = parser.parse_args()
    asked = [name for name in given.only.split(",") if name]
    earlier: dict[str, list[Row]] = {}
    if given.kept and given.kept.exists():
        earlier = json.loads(given.kept.read_text())
    scripts = {path.stem: path for path in sorted(CASES.glob("*.py"))}
    kept: dict[str, list[Row]] = {}
    for name in [*scripts, *ATTEMPTS]:
        kind = name if name in scripts else "data"
        wanted = kind in asked if asked else name not in earlier
        if wanted:
            print(name, file=sys.stderr, flush=True)
            earlier[name] = run_case(scripts[name]) if name in scripts else attempt(name)
            if given.kept:
                given.kept.write_text(json.dumps(earlier, indent=1))
        if name in earlier:
            kept[name] = earlier[name]
    PAGE.write_text(page(kept))


if __name__ == "__main__":
    main()

"""How long reports take, how large they are, and how soon a browser shows them.

Analyses ResNet-20 and ResNet-56 on CIFAR-10 and a generated classifier of 1,000 classes and 2,048
features (`bench/generated.py`) where `--work` does not hold their runs yet, takes away their
pictures, and times `penult report` as a process of its own: from the run folder to the page,
pictures and heat maps included. Then opens each page in Chromium.

    python bench/report.py ../shared/data --work runs
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from playwright.sync_api import Browser, sync_playwright

from penult.runs.run import Run

Row = dict[str, Any]

HERE = Path(__file__).parent
PENULT = (sys.executable, "-m", "penult")
CHROMIUM = "/usr/bin/chromium"
QUIET = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
LIMITS = {"resnet20": 60, "resnet56": 60, "generated": 180}
PAINT = """() => new Promise(resolve => {
  const found = performance.getEntriesByName("first-contentful-paint")[0];
  resolve(found ? found.startTime / 1000 : null);
})"""
VIEW = """async route => {
  const begun = performance.now();
  const moved = new Promise(resolve => addEventListener("popstate", resolve, { once: true }));
  location.hash = route;
  await moved;
  await new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  return (performance.now() - begun) / 1000;
}"""


def analysed(name: str, data: Path, work: Path) -> Path:
    """The run of a network, made where it is not there yet."""
    folder = work / name
    if not (folder / "summary.json").exists():
        if name == "generated":
            spec = f"{HERE / 'generated.py'}"
            arguments = [f"{spec}:network", f"{spec}:train", "--eval", f"{spec}:held_out"]
        else:
            (weights,) = (data / "checkpoints").glob(f"{name}-*.th")
            images = data / "cifar10"
            arguments = [f"{HERE / 'cifar_resnet.py'}:{name}", str(images / "train.zip")]
            arguments += ["--eval", str(images / "test.zip"), "--weights", str(weights)]
        command = [*PENULT, "analyze", *arguments, "--out", str(folder), "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def report(folder: Path, out: Path, again: bool = False) -> tuple[float, float]:
    """Seconds and peak memory (bytes) of `penult report`; `again`: with the pictures it has."""
    if not again:
        shutil.rmtree(folder / "examples", ignore_errors=True)
    begun = time.perf_counter()
    command = [*PENULT, "report", str(folder), "--out", str(out)]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.Error:
            break
        time.sleep(0.02)
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - begun, peak


def opened(browser: Browser, page_file: Path, n_classes: int, n_features: int) -> Row:
    """Seconds until the first view and of going to others, and whether anything went wrong."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    begun = time.perf_counter()
    page.goto(page_file.as_uri())
    loaded = time.perf_counter() - begun
    paint = page.evaluate(PAINT)
    routes = ["classes", f"class/{n_classes - 1}", "features", f"feature/{n_features - 1}"]
    views = {route.split("/")[0]: page.evaluate(VIEW, route) for route in [*routes, "mistakes"]}
    outside = [url for url in asked if not url.startswith(("data:", "file:"))]
    page.close()
    return {"paint": paint, "loaded": loaded, "views": views, "errors": said, "requests": outside}


def measured(name: str, folder: Path, work: Path, browser: Browser) -> Row:
    out = work / f"{name}.html"
    seconds, peak = report(folder, out)
    again, _ = report(folder, out, again=True)
    summary = Run.open(folder).summary()
    examples = json.loads((folder / "examples" / "index.json").read_text(encoding="utf-8"))
    return {
        "name": name,
        "limit": LIMITS[name],
        "n_classes": summary["n_classes"],
        "n_features": summary["n_features"],
        "n_samples": summary["n_samples"],
        "n_images": len(examples["images"]),
        "n_maps": len(examples["maps"]),
        "seconds": seconds,
        "again": again,
        "peak": peak,
        "size": out.stat().st_size,
        **opened(browser, out, summary["n_classes"], summary["n_features"]),
    }


def page(rows: list[Row]) -> str:
    threads = os.environ.get("OMP_NUM_THREADS") or os.cpu_count()
    lines = [
        "# Reports: time, size, and how soon a browser shows them",
        "",
        f"`python bench/report.py ../shared/data --work runs`, torch {torch.__version__}, "
        f"{platform.machine()}, {threads} threads. Seconds of `penult report` as a process of its "
        "own, from a finished run to the page, pictures and heat maps taken anew; again: with the "
        "pictures that the run has by then. One run each.",
        "",
        "| run | classes × features | samples | images, maps | s | again, s | asked, s "
        "| memory, MB | page, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['name']} | {row['n_classes']:,} × {row['n_features']:,} | {row['n_samples']:,} | "
        f"{row['n_images']:,}, {row['n_maps']:,} | {row['seconds']:.1f} | {row['again']:.1f} | "
        f"{row['limit']} | {row['peak'] / 1e6:,.0f} | {row['size'] / 1e6:.1f} |"
        for row in rows
    ]
    lines += [
        "",
        "In Chromium, from disk, 1440 × 900, seconds: until the first view is painted, until the "
        "page is loaded, and from a click to the next view. Errors and requests to anywhere else "
        "were counted.",
        "",
        "| run | first view | loaded | classes | a class | features | a feature | mistakes "
        "| errors | requests |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        views = row["views"]
        shown = ("classes", "class", "features", "feature", "mistakes")
        times = " | ".join(f"{views[name]:.2f}" for name in shown)
        lines.append(
            f"| {row['name']} | {row['paint']:.2f} | {row['loaded']:.2f} | {times} | "
            f"{len(row['errors'])} | {len(row['requests'])} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("data", type=Path)
    options.add_argument("--work", type=Path, default=Path("runs"))
    options.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks")
    given = options.parse_args()
    rows = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        for name in LIMITS:
            rows.append(measured(name, analysed(name, given.data, given.work), given.work, browser))
            print(json.dumps(rows[-1]))
        browser.close()
    (given.out / "report.md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()

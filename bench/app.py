"""How soon the app shows a run and answers a switch: 50,000 × 2,048 features, 1,000 classes.

`.venv/bin/python bench/app.py --folder SCRATCH` makes a run of generated features in the folder,
starts `penult app` on it as a process of its own, and opens it in Chromium: seconds until the first
view is painted and until it is complete, from a click on a switch until the redrawn numbers are
painted, ten tabs with different states, memory, messages of the console, and whether anything is
wider than the window. Writes docs/benchmarks/app.md.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from playwright.sync_api import BrowserContext, Page, sync_playwright

from edit import drawn
from penult.features.features import Features
from penult.runs.analyze import Options, analyze_features

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = "/usr/bin/chromium"
QUIET = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
VIEWS = ["summary", "classes", "class/7", "features", "feature/7", "mistakes", "samples",
         "samples?class=7&feature=7", "sample/eval/7", "suspects", "edit/now", "guide"]  # fmt: skip
FIRST, SWITCHED = 1.0, 0.15
TABS = 10
PAINT = """async () => {
  for (;;) {
    const [found] = performance.getEntriesByName("first-contentful-paint");
    if (found) return found.startTime / 1000;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}"""
# From the click to the frame in which other numbers stand in the dock.
SWITCH = """([kind, text]) => new Promise(resolve => {
  const numbers = document.querySelector(".dock-numbers");
  const button = kind === "undo" ? document.getElementById("undo")
    : [...document.querySelectorAll(".switches button")].find(one => one.textContent === text);
  const begun = performance.now();
  const watch = new MutationObserver(() => {
    const wanted = kind === "undo" ? "no edits" : "→";
    if (!numbers.textContent.includes(wanted)) return;
    watch.disconnect();
    requestAnimationFrame(() => setTimeout(() => resolve((performance.now() - begun) / 1000)));
  });
  watch.observe(numbers, { childList: true, subtree: true, characterData: true });
  button.click();
})"""
VIEW = """async route => {
  const begun = performance.now();
  location.hash = route;
  for (;;) {
    await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)));
    const wait = [...document.querySelectorAll(".wait")].some(node => node.checkVisibility());
    const empty = document.querySelector(".samples") && !document.querySelector(".samples .case");
    if (location.hash.startsWith(`#${route}`) && !wait && !empty) break;
  }
  return (performance.now() - begun) / 1000;
}"""


def made(folder: Path, n: int, d: int, n_classes: int) -> Path:
    """A run of generated features, made where it is not there yet."""
    run = folder / "run"
    if not (run / "summary.json").exists():
        drawn(folder / "features.safetensors", n, d, n_classes, 0)
        drawn(folder / "trained.safetensors", n, d, n_classes, 1)
        trained = Features.open(folder / "trained.safetensors")
        held_out = Features.open(folder / "features.safetensors")
        analyze_features(trained, held_out, run, Options(fit=False))
    return run


class Served:
    """`penult app` as a process, with the most memory that it and its children took."""

    def __init__(self, run: Path) -> None:
        command = [sys.executable, "-m", "penult", "app", str(run), "--no-browser"]
        begun = time.perf_counter()
        self.process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        self.seconds = time.perf_counter() - begun
        found = re.search(r"http\S+", line)
        if found is None:
            raise SystemExit(f"penult app said {line!r}")
        self.address = found[0]

    def memory(self) -> int:
        """Bytes that are its own, mapped files not counted, with its children."""
        all_of_them = [self.process, *self.process.children(recursive=True)]
        return sum(one.memory_full_info().uss for one in all_of_them)


class Running(Served):
    """One that runs already, such as on a run that takes long to read."""

    def __init__(self, address: str, pid: int, seconds: float) -> None:
        self.address, self.seconds, self.process = address, seconds, psutil.Process(pid)


@contextmanager
def served(run: Path, running: Running | None) -> Iterator[Served]:
    if running is not None:
        yield running
        return
    server = Served(run)
    try:
        yield server
    finally:
        server.process.send_signal(2)
        server.process.wait(30)


def opened(context: BrowserContext, address: str, said: list[str]) -> Page:
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    page.wait_for_selector(".dock")
    return page


def switched(page: Page, features: list[str]) -> list[float]:
    """Seconds of switches: one off for a class, then undone by hand for the next."""
    taken = []
    for route in features:
        page.evaluate(VIEW, route)
        page.wait_for_selector(".switches")
        taken.append(page.evaluate(SWITCH, ["off", "Off"]))
        page.evaluate(SWITCH, ["undo", ""])
    return taken


def measured(run: Path, running: Running | None) -> dict[str, Any]:
    with served(run, running) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        said: list[str] = []
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = opened(context, server.address, said)
        page.wait_for_timeout(10_000)  # the logits of the network's own head are computed meanwhile
        quiet = server.memory()
        firsts, complete = [], []
        for _ in range(5):
            begun = time.perf_counter()
            page.reload()
            page.wait_for_selector(".dock")
            complete.append(time.perf_counter() - begun)
            firsts.append(page.evaluate(PAINT))
        for view in VIEWS:
            page.evaluate(VIEW, view)
        one_class = switched(page, [f"class/{c}" for c in range(10, 21)])
        for_all = switched(page, [f"feature/{j}" for j in range(10, 21)])
        tabs = tabs_of(context, page, server, said)
        wide = too_wide(page)
        busy = server.memory()
        browser.close()
        return {"start": server.seconds, "quiet": quiet, "busy": busy, "first": firsts,
                "complete": complete, "class": one_class, "all": for_all,
                "tabs": tabs, "wide": wide, "said": said}  # fmt: skip


def tabs_of(context: BrowserContext, page: Page, server: Served, said: list[str]) -> dict[str, Any]:
    """Ten tabs with an edit of their own: each keeps its numbers, and how long each switch took."""
    site = page.url.partition("#")[0]
    pages = [opened(context, site, said) for _ in range(TABS)]
    taken = []
    for c, tab in enumerate(pages):
        tab.bring_to_front()
        tab.evaluate(VIEW, f"class/{30 + c}")
        tab.wait_for_selector(".switches")
        taken.append(tab.evaluate(SWITCH, ["off", "Off"]))
    states = {tab.evaluate("() => location.hash.split('!')[1]") for tab in pages}
    numbers = [tab.inner_text(".dock-numbers") for tab in pages]
    for tab in pages:
        tab.bring_to_front()
        tab.reload()
        tab.wait_for_function(
            "() => document.querySelector('.dock-numbers')?.textContent.includes('→')"
        )
    kept = [tab.inner_text(".dock-numbers") for tab in pages] == numbers
    for tab in pages:
        tab.close()
    return {"seconds": taken, "states": len(states), "kept": kept}


def too_wide(page: Page) -> list[str]:
    """Views that are wider than a window of 360 or 1440 pixels."""
    found = []
    for width in (360, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        for view in VIEWS:
            page.evaluate(VIEW, view)
            if page.evaluate("() => document.documentElement.scrollWidth > innerWidth"):
                found.append(f"{view} at {width} px")
    return found


def table(found: dict[str, Any], size: str) -> str:
    def row(name: str, values: list[float], aim: str = "") -> str:
        return f"| {name} | {statistics.median(values):.3f} | {max(values):.3f} | {aim} |"

    tabs, said = found["tabs"], found["said"]
    threads, cores = os.environ.get("OMP_NUM_THREADS") or os.cpu_count(), os.cpu_count()
    kept = "each had the same numbers again" if tabs["kept"] else "NOT ALL had the same numbers"
    quiet, busy = (found[name] / 1e6 for name in ("quiet", "busy"))
    aim = f"{SWITCHED:g}"
    lines = [
        "# The app: how soon it shows a run and answers a switch",
        "",
        f"`bench/app.py`: {size}, no images; features in float32.",
        f"`penult app` as a process with {threads} threads, Chromium on the same machine "
        f"of {cores} cores, whose load at the end was {os.getloadavg()[0]:.1f}. "
        f"torch {torch.__version__}.",
        "",
        "| seconds | median | longest | aim |",
        "| --- | --- | --- | --- |",
        row("first view painted", found["first"], f"{FIRST:g}"),
        row("page complete, with its dock", found["complete"]),
        row("a feature off for one class: click to redrawn numbers", found["class"], aim),
        row("a feature off for all classes", found["all"], aim),
        row("a feature off for one class, in ten tabs one after the other", tabs["seconds"], aim),
        "",
        f"Start of the server until it prints its address, the run read: {found['start']:.1f} s. "
        "Memory of the server and its workers, mapped files not counted: "
        f"{quiet:,.0f} MB after the first view, {busy:,.0f} MB at the end.",
        "",
        f"Ten tabs held {tabs['states']} different states, and {kept} after a reload. "
        f"Messages of the console: {len(said)}{': ' + '; '.join(said[:3]) if said else ''}. "
        f"Wider than the window at 360 or 1440 pixels: {', '.join(found['wide']) or 'nothing'}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--samples", type=int, default=50_000)
    options.add_argument("--features", type=int, default=2_048)
    options.add_argument("--classes", type=int, default=1_000)
    options.add_argument("--folder", type=Path, required=True, help="keeps the run")
    options.add_argument(
        "--running",
        nargs=3,
        metavar=("ADDRESS", "PID", "SECONDS"),
        help="of a server that runs already, and how long it took to start",
    )
    options.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "app.md")
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    size = f"{given.samples:,} samples × {given.features:,} features × {given.classes:,} classes"
    running = None
    if given.running:
        address, pid, seconds = given.running
        running = Running(address, int(pid), float(seconds))
    run = made(given.folder, given.samples, given.features, given.classes)
    found = measured(run, running)
    given.out.write_text(table(found, size), encoding="utf-8")
    print(given.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

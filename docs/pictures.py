"""Screenshots of a report for the README and these pages, and one explained image.

    make demo
    python docs/pictures.py penult-demo

    python docs/pictures.py run --acting

The second takes those of `edit.md`, of a run in which its commands were given. Writes
`docs/pictures/`. Needs Chromium and playwright, as the tests do.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from penult.explain.drawing import save_picture
from penult.explain.explanation import Explanation
from penult.report.report import Report
from penult.runs.run import Run

CHROMIUM = "/usr/bin/chromium"
QUIET = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
QUALITY = 90
DESKTOP, PHONE = (1280, 860), (390, 780)


def shots(document: dict[str, Any]) -> dict[str, tuple[str, tuple[int, int], str]]:
    """Name of each picture → view, size and colour scheme."""
    classes = document["classes"]
    worst = min(range(len(classes)), key=lambda c: classes[c]["sparse"] or 0)
    feature = classes[worst]["features"][0]
    return {
        "summary": ("summary", DESKTOP, "light"),
        "class": (f"class/{worst}", DESKTOP, "light"),
        "feature": (f"feature/{feature}", DESKTOP, "dark"),
        "mistake": ("mistake/0", DESKTOP, "light"),
        "phone": (f"class/{worst}", PHONE, "dark"),
    }


def acting(document: dict[str, Any]) -> dict[str, tuple[str, tuple[int, int], str]]:
    """Likewise of what a person does about what is seen."""
    return {
        "groups": ("groups", DESKTOP, "light"),
        "suspect": ("suspect/0", DESKTOP, "light"),
        "mends": ("edits", DESKTOP, "light"),
    }


def main() -> None:
    """Take them all."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("run", type=Path)
    options.add_argument("--acting", action="store_true", help="groups, suspects and edits")
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "pictures")
    given = options.parse_args()
    run = Run.open(given.run)
    given.out.mkdir(parents=True, exist_ok=True)
    report = Report.of(run)
    report.save(run.report_file)
    wanted = (acting if given.acting else shots)(report.document)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        for name, (view, (width, height), scheme) in wanted.items():
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page.goto(f"{run.report_file.resolve().as_uri()}#{view}")
            page.wait_for_function("[...document.images].every(image => image.complete)")
            page.wait_for_timeout(300)
            with Image.open(io.BytesIO(page.screenshot())) as taken:
                taken.save(given.out / f"{name}.webp", quality=QUALITY, method=6)
            page.close()
        browser.close()
    if given.acting:
        return
    first = report.document["mistakes"]["rows"][0]["id"]
    save_picture(Explanation.of(run, first), given.out / "explanation.png")


if __name__ == "__main__":
    main()

r"""Walks through a planted shortcut in the app, and takes the screenshots of `app.md` on the way.

    python stamped.py
    penult analyze stamped.py:network train --eval new --weights stamped.safetensors \
        --groups groups.csv --out run
    penult shortcuts run
    python docs/app_pictures.py run

in the folder of `stamped.py`'s images. Judges the first suspect, switches it off and writes the
network, as a person would; prints how long that took. Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from penult.live.server import LiveServer
from penult.runs.reopen import Places

CHROMIUM = "/usr/bin/chromium"
QUIET = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 780}
SETTLED = """() => {
  const seen = node => {
    const { top, bottom } = node.getBoundingClientRect();
    return node.checkVisibility() && bottom > 0 && top < innerHeight;
  };
  return [...document.images].every(image => image.complete || !seen(image))
    && ![...document.querySelectorAll(".ring-of, .wait, .working")].some(seen);
}"""


class Walk:
    """A person who walks through the app, and takes pictures."""

    def __init__(self, page: Page, out: Path) -> None:
        self.page, self.out = page, out

    def picture(self, name: str) -> None:
        """What the window shows now."""
        self.page.wait_for_function(SETTLED)
        self.page.wait_for_timeout(200)
        with Image.open(io.BytesIO(self.page.screenshot())) as taken:
            taken.save(self.out / f"{name}.webp", quality=90, method=6)

    def found(self) -> None:
        """The suspects, and the first of them."""
        self.page.click("nav >> text=Suspects")
        self.page.wait_for_selector(".work-line")
        self.picture("app-suspects")
        self.page.click(".work-line >> text=Judge the next")
        self.page.wait_for_selector("text=High in the class")
        self.picture("app-suspect")

    def judged(self) -> None:
        """A verdict by its key; the next suspect comes by itself."""
        self.page.keyboard.press("s")
        self.page.wait_for_selector(".toast")
        self.page.go_back()

    def switched_off(self) -> None:
        """The feature off for the class, and what that does."""
        self.page.click(".switches >> text=Off")
        self.page.wait_for_selector(".dock-numbers b:has-text('→')")
        self.page.keyboard.press("e")
        self.page.wait_for_selector("text=Right before, wrong now")
        self.picture("app-effect")

    def written(self) -> None:
        """The mended network, in the run."""
        self.page.keyboard.press("w")
        self.page.fill(".save-dialog input[type=text]", "without-stamp")
        self.page.get_by_role("button", name="Write", exact=True).click()
        self.page.wait_for_selector("text=Written to", timeout=120_000)
        self.picture("app-written")
        self.page.keyboard.press("Escape")


def main() -> None:
    """Take them all."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("run", type=Path)
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "pictures")
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    server = LiveServer(given.run, places=Places(trust_run=True))
    server.read()
    server.start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        page = browser.new_page(viewport=DESKTOP, color_scheme="light")  # type: ignore[arg-type]
        page.goto(server.address)
        page.wait_for_selector("#summary-view h1")
        walk, begun = Walk(page, given.out), time.perf_counter()
        for step in (walk.found, walk.judged, walk.switched_off, walk.written):
            step()
        print(f"{time.perf_counter() - begun:.0f} s for a script; a person reads in between")
        extras(page, walk)
        browser.close()
    server.stop()


def extras(page: Page, walk: Walk) -> None:
    """One image with its features as sliders, and a class on a phone in the dark."""
    page.evaluate("location.hash = 'samples?class=9&predicted=3&feature=31'")
    page.wait_for_selector(".samples .id-link")
    page.click(".samples .id-link")
    page.wait_for_selector(".what-if")
    walk.picture("app-what-if")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.evaluate("location.hash = 'class/3'")
    page.wait_for_selector(".switches")
    page.click(".switches >> text=Cap")
    page.locator(".drawer").first.scroll_into_view_if_needed()
    walk.picture("app-phone")


if __name__ == "__main__":
    main()

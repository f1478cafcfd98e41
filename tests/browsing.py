"""A report opened in a browser: what it shows, says and asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Dialog, Page

TOUR = """async routes => {
  const seen = [];
  for (const route of routes) {
    if (location.hash !== `#${route}`) {
      const moved = new Promise(resolve => addEventListener("popstate", resolve, { once: true }));
      location.hash = route;
      await moved;
    }
    const shown = [...document.images].filter(image => image.offsetParent);
    const decoded = shown.map(image => image.decode().then(() => true, () => false));
    seen.push({
      route, heading: [...document.querySelectorAll("h1")].find(h => h.offsetParent)?.innerText,
      links: [...document.querySelectorAll("a[href]")].map(link => link.getAttribute("href")),
      fits: document.documentElement.scrollWidth <= innerWidth,
      images: (await Promise.all(decoded)).every(Boolean) && shown.every(image => image.complete),
      text: document.querySelector("main").innerText,
    });
  }
  return seen;
}"""


@dataclass
class Visit:
    """A page in the browser with all that it said and asked for."""

    page: Page
    address: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def tour(self, routes: Sequence[str]) -> list[dict[str, Any]]:
        """What each route shows: heading, links, text, whether it fits and its images load."""
        found: list[dict[str, Any]] = self.page.evaluate(TOUR, routes)
        return found

    def dismiss(self, dialog: Dialog) -> None:
        self.said.append(dialog.message)
        dialog.dismiss()

    def go(self, route: str) -> None:
        self.tour([route])

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    def heading(self) -> str:
        return self.page.locator("h1:visible").inner_text()


Open = Callable[..., Visit]

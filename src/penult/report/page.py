"""The page: a report's document and details as one HTML file that needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from penult.report.bundles import bundles, legible
from penult.report.figures import curve, matrix, reason_bars, worst_classes

PARTS = ("dom.js", "shots.js", "lists.js", "details.js", "groups.js", "suspects.js", "edits.js")
_HERE = Path(__file__).parent


def render(
    document: Mapping[str, Any],
    class_details: Sequence[Mapping[str, Any]],
    feature_details: Sequence[Mapping[str, Any]],
    images: Sequence[Mapping[str, Any]],
) -> str:
    """The report as HTML: the summary is in it as text, all else is drawn by script from JSON.

    The page asks for nothing outside of itself and may be opened from a disk, from a mail or in
    the `srcdoc` of a frame. Names are shown as text, whatever they hold.

    Args:
        document: format `penult-report/1`; `start` may name a route to open, such as "class/3".
        class_details: one for each class: its features with images, its confusions.
        feature_details: one for each feature: its readers, images and distribution.
        images: what the indexes of images stand for.

    Raises:
        ValueError: a NaN or an infinity among the numbers.
    """
    return _filled(
        document,
        class_details,
        glance=any(image["src"] for image in images),
        bundles=lambda shown: bundles(
            shown, class_details, feature_details, [legible(image) for image in images]
        ),
    )


def render_live(
    document: Mapping[str, Any],
    class_details: Sequence[Mapping[str, Any]],
    chunks: Mapping[str, int],
) -> str:
    """The page of a report whose details, styles and scripts a server gives when asked.

    Args:
        document: see `render`; under `live` it says what the server can do.
        class_details: one for each class.
        chunks: how many details of each kind are given at once.
    """
    return _filled(
        document,
        class_details,
        glance=document["live"]["images"],
        bundles=lambda shown: bundles(shown, (), (), (), chunks),
    )


def script(more: Sequence[str] = ()) -> str:
    """The script of the report as a live page has it, as one that leaves no names behind.

    Args:
        more: further scripts; the page itself comes after them.
    """
    parts = (_source(_HERE / name) for name in (*PARTS, "views.js"))
    last = _source(_HERE / "page.js")
    return "\n".join(['"use strict";', "(() => {", *parts, *more, last, "})();", ""])


def style() -> str:
    """The style sheet of every page."""
    return str(_source(_HERE / "page.css"))


def first() -> str:
    """The script that runs before anything is drawn."""
    return str(_source(_HERE / "first.js"))


def _filled(
    document: Mapping[str, Any],
    class_details: Sequence[Mapping[str, Any]],
    *,
    glance: bool,
    bundles: Callable[[dict[str, Any]], Iterator[tuple[str, Markup]]],
) -> str:
    """The template with all that a report and a live page have in common."""
    shown: dict[str, Any] = legible(document)
    for row in shown["classes"]:
        row["name"] = row["name"].strip() or "(no name)"  # or there would be nothing to click on
    return fill(
        "page.html.j2",
        [_HERE / "views.js"],
        d=shown,
        start=shown.get("start") or "summary",
        curves=[curve(shown, 720, 350), curve(shown, 330, 300, labelled=False)],
        glance=glance,
        matrix=matrix(shown, class_details),
        worst=worst_classes(shown),
        reasons=reason_bars(shown),
        warnings=feature_warnings(shown),
        bundles=bundles(shown),
    )


def fill(template: str, views: Sequence[Path], folder: Path = _HERE, **values: Any) -> str:
    """A page made from a template that extends `shell.html.j2`.

    Args:
        template: its name.
        views: scripts that define its `VIEWS` and `TABS`, see `views.js`.
        folder: where the template lies.
        values: what it shows: `d` the document, `start` the first route, `bundles` the data.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # slow to import

    environment = Environment(
        loader=FileSystemLoader([folder, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "whole": whole,
        "points": points,
        "loss": loss,
        "count": count,
        "size": size,
        "number": number,
    }
    scripts = [*(_HERE / name for name in PARTS), *views, _HERE / "page.js"]
    return environment.get_template(template).render(
        style=Markup(style()),
        first=Markup(first()),
        scripts=[_source(path) for path in scripts],
        **values,
    )


def feature_warnings(document: Mapping[str, Any]) -> dict[str, list[int]]:
    """Features that a person should look at, by what is the matter with them.

    Those that decide classes in the network and that no class of the sparse head reads, the
    strongest first; dead ones, flat ones, and those that have a twin.
    """
    features = list(enumerate(document["features"]))
    left = [j for j, feature in features if feature["deciding"] and not feature["readers"]]
    left.sort(key=lambda j: -(document["features"][j]["evidence"] or 0.0))
    return {
        "left": left if document["head"] is not None else [],
        "dead": [j for j, feature in features if feature["dead"]],
        "flat": [j for j, feature in features if feature["flat"] and not feature["dead"]],
        "twins": [j for j, feature in features if feature["twin"] is not None],
    }


def percent(fraction: float | None) -> str:
    """A fraction as a person reads it: `91.73%`, or a dash where it is not known."""
    return "–" if fraction is None else f"{100 * fraction:.2f}%"


def whole(fraction: float | None) -> str:
    """A share in whole percent, for where hundredths say nothing: `28%`, `<1%`."""
    if fraction is None:
        return "–"
    return "<1%" if 0 < fraction < 0.005 else f"{math.floor(100 * fraction + 0.5)}%"


def points(fraction: float | None) -> str:
    """A difference of fractions in percentage points with its sign: `+0.42`, `−1.10`."""
    if fraction is None:
        return "–"
    text = f"{100 * fraction:+.2f}".replace("-", "\u2212")
    return "0.00" if text[1:] == "0.00" else text


def loss(fraction: float) -> str:
    """A loss of accuracy in percentage points, a gain as a negative one: `0.42`, `−0.10`."""
    return points(fraction).removeprefix("+")


def count(value: int) -> str:
    """A count with thousands separators: `50,000`."""
    return f"{value:,}"


def size(value: float) -> str:
    """A mean or median of counts: `1,555`, `9.2`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}".removesuffix(".0")


def number(value: float | None) -> str:
    """A quantity of no fixed unit, in three significant digits."""
    return "–" if value is None else f"{value:.3g}".replace("-", "\u2212")


def _source(path: Path) -> Markup:
    return Markup(path.read_text(encoding="utf-8"))

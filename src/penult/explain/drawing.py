"""Drawing: an explanation as one picture, made when it is asked for."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from penult.explain.decision import SHOWN, Decision
from penult.explain.overlay import enlarged
from penult.explain.wording import equation, short, signed, sufficient
from penult.plotting import new_figure, plain_style, save_figure, with_fonts

CHARACTERS = 9  # an inch of a line below the bars
UP, DOWN, QUIET = "#D55E00", "#0072B2", "#8a8a8a"


def save_picture(found: Decision, path: Path) -> None:
    """Write an explanation as PNG, SVG or PDF, by the file's name."""
    save_figure(draw(found), path)


def draw(found: Decision) -> Any:
    """A matplotlib figure: above the image and its features' heat maps, below what each adds."""
    terms = found.terms
    shown = terms.terms[:SHOWN]
    drawn = found.picture is not None
    with_maps = drawn and found.maps is not None
    n_panels = 1 + len(shown) if with_maps else int(drawn)
    n_bars = len(shown) + (len(terms.terms) > len(shown)) + 1
    width = max(7.5, 1.55 * n_panels + 0.4)
    bars = 0.34 * n_bars + 0.55
    heights = [width / (1 + SHOWN) + 0.45, bars] if drawn else [bars]
    with plain_style():
        figure = new_figure(width, sum(heights) + 0.85)
        _head_line(figure, found)
        rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        if drawn:
            _draw_images(rows[0], found, shown if with_maps else ())
        _draw_bars(rows[-1].subplots(), found, shown)
        return with_fonts(figure)


def _head_line(figure: Any, found: Decision) -> None:
    names = found.class_names
    called = f"{short(names[found.predicted])} ({found.probability():.1%})"
    parts = [f"called {called} by the {found.head_name}"]
    if found.label is not None:
        parts.append(f"labelled {short(names[found.label])}")
    if found.dense_predicted != found.predicted:
        parts.append(f"the network itself says {short(names[found.dense_predicted])}")
    if found.outside:
        parts.append("unlike the analysed images")
    text = f"{short(found.image)}\n{' · '.join(parts)}"
    figure.suptitle(text, fontsize=10, x=0.02, ha="left")


def _draw_images(row: Any, found: Decision, shown: Any) -> None:
    assert found.picture is not None
    axes = row.subplots(1, max(1 + len(shown), 1 + SHOWN), squeeze=False)[0]
    for panel in axes:
        panel.axis("off")
    axes[0].imshow(enlarged(found.picture))
    axes[0].set_title("what it saw", fontsize=9)
    if shown:
        of = short(found.class_names[found.terms.of])
        row.supxlabel(f"orange speaks for {of}, blue against", fontsize=9)
    for panel, term, overlaid in zip(axes[1:], shown, found.overlays(), strict=False):
        panel.imshow(overlaid)
        panel.set_title(f"feature {term.feature}\nvalue {signed(f'{term.value:.3g}')}", fontsize=9)


def _draw_bars(axes: Any, found: Decision, shown: Any) -> None:
    terms = found.terms
    figure_width = axes.get_figure(root=True).get_figwidth()
    bars = [
        (signed(f"feature {t.feature}:  {t.value:.3g} × {t.weight:+.3g}"), t.contribution)
        for t in shown
    ]
    n_rest = len(terms.terms) - len(shown)
    if n_rest:
        bars.append((f"{n_rest} other features", terms.rest(len(shown))))
    bars.append(("bias", terms.bias))
    places = range(len(bars))
    values = [value for _, value in bars]
    colours = [UP if value > 0 else DOWN for value in values]
    for i in range(len(shown), len(bars)):
        colours[i] = QUIET
    axes.barh(places, values, color=colours, height=0.7)
    axes.set_yticks(places, [label for label, _ in bars], fontsize=9)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.14 * (high - low or 1)
    axes.set_xlim(low - (room if low < 0 else 0), high + room)
    for place, value in zip(places, values, strict=True):
        side = "left" if value >= 0 else "right"
        text = signed(f" {value:+.3f} ")
        axes.text(value, place, text, va="center", ha=side, fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(equation(found), fontsize=10, loc="left")
    axes.set_xlabel(
        textwrap.fill(sufficient(found), int(CHARACTERS * figure_width)),
        fontsize=9,
    )

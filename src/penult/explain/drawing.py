"""Drawing: an explanation as one picture, made when it is asked for."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from pathlib import Path
from typing import Any

from penult.explain.decision import SHOWN, Decision
from penult.explain.overlay import enlarged
from penult.explain.shading import shaded
from penult.explain.wording import equation, short, signed, sufficient, words_of
from penult.plotting import new_figure, plain_style, save_figure, with_fonts
from penult.text import one_line

LETTERS = 94  # of a line of text
FONT_SIZE, MONOSPACED = 9, "DejaVu Sans Mono"
LETTER = 0.602  # width of one, in the size of the font
LINE = 0.24  # inches from one line of text to the next
MOST_LINES = 40
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
    lines = _lines(found)
    n_panels = 1 + len(shown) if with_maps else int(drawn)
    n_bars = len(shown) + (len(terms.terms) > len(shown)) + 1
    if found.words is not None:
        n_bars = round(1.4 * n_bars)
    width = max(7.5, 1.55 * n_panels + 0.4)
    bars = 0.34 * n_bars + 0.55
    heights = [width / (1 + SHOWN) + 0.45, bars] if drawn else [bars]
    if lines:
        heights = [LINE * (len(lines) + 2), bars]
    with plain_style():
        figure = new_figure(width, sum(heights) + 0.85)
        _head_line(figure, found)
        rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        if lines:
            _draw_text(rows[0], found, lines, width)
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
        parts.append(f"unlike the analysed {found.kind}s")
    text = f"{short(found.image)}\n{' · '.join(parts)}"
    figure.suptitle(text, fontsize=10, x=0.02, ha="left")


def _lines(found: Decision) -> list[list[tuple[str, float]]]:
    """The text in lines of pieces, each with its strength; none for an image."""
    if found.text is None:
        return []
    parts = [(found.text, 0.0)] if found.words is None else list(found.words.parts())
    pieces = [
        (piece, strength if piece.strip() else 0.0)
        for part, strength in parts
        for piece in re.findall(r"\S+|\s", one_line(part))
    ]
    lines: list[list[tuple[str, float]]] = [[]]
    n = 0
    for piece, strength in pieces:
        if n + columns(piece) > LETTERS and n:
            lines.append([])
            n = 0
        if n or piece.strip():
            lines[-1].append((piece, strength))
            n += columns(piece)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], [("…", 0.0)]]
    return lines


def _draw_text(
    row: Any, found: Decision, lines: list[list[tuple[str, float]]], width: float
) -> None:
    """The text, each word on the colour of what it adds, in letters of one width."""
    axes = row.add_axes([0, 0, 1, 1])
    axes.axis("off")
    axes.set_xlim(0, width)
    axes.set_ylim(len(lines) + 1.5, -0.6)
    letter = LETTER * FONT_SIZE / 72
    for y, line in enumerate(lines):
        x = 0.15
        for piece, strength in line:
            wide = letter * columns(piece)
            shade = shaded(strength)
            if shade is not None:
                colour = tuple(part / 255 for part in shade)
                axes.barh(y, wide, 0.9, left=x, color=colour)
            if piece.strip():
                style = {"fontsize": FONT_SIZE, "fontfamily": MONOSPACED}
                axes.text(x, y, piece, ha="left", va="center", **style)
            x += wide
    if found.words is not None:
        of = short(found.class_names[found.terms.of])
        said = f"orange speaks for {of}, blue against"
        axes.text(width / 2, len(lines) + 0.6, said, ha="center", fontsize=FONT_SIZE)


def columns(text: str) -> int:
    """How many letters' room a text takes: Chinese and Japanese letters are twice as wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


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
    if found.words is not None:
        bars = [
            (f"{label}\n{words_of(found, i, 2)}", value) for i, (label, value) in enumerate(bars)
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

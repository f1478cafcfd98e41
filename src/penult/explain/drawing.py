"""Drawing: an explanation as one picture, made when it is asked for."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penult.errors import InputError
from penult.explain.explanation import SHOWN, Explanation, short
from penult.explain.overlay import enlarged
from penult.storage import write_atomically

FORMATS = ("png", "svg")
DPI = 150
CHARACTERS = 9  # an inch of a line below the bars
UP, DOWN, QUIET = "#D55E00", "#0072B2", "#8a8a8a"


def require_format(path: Path) -> str:
    """Format of a picture by its name; refuses others before the long work starts."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise InputError(f"{path}: expected a name that ends in .png or .svg")
    if path.is_dir():
        raise InputError(f"{path} is a folder: expected the name of a picture")
    return kind


def save_picture(explanation: Explanation, path: Path) -> None:
    """Write an explanation as PNG or SVG, by the file's name."""
    import matplotlib as mpl

    kind = require_format(path)
    figure = explanation.figure()
    # The same explanation gives the same bytes, and text stays text.
    settings: Any = {"svg.hashsalt": "penult", "svg.fonttype": "none"}
    about = {"Date": None} if kind == "svg" else {}
    with mpl.rc_context(settings), _without_warnings():
        write_atomically(
            path, lambda file: figure.savefig(file, format=kind, dpi=DPI, metadata=about)
        )


def draw_explanation(explanation: Explanation) -> Any:
    """A matplotlib figure: above the image and its features' heat maps, below what each adds."""
    from matplotlib.figure import Figure

    terms = explanation.terms
    shown = terms.terms[:SHOWN]
    drawn = explanation.picture is not None
    with_maps = drawn and explanation.maps is not None
    n_panels = 1 + len(shown) if with_maps else int(drawn)
    n_bars = len(shown) + (len(terms.terms) > len(shown)) + 1
    width = max(7.5, 1.55 * n_panels + 0.4)
    bars = 0.34 * n_bars + 0.55
    heights = [width / (1 + SHOWN) + 0.45, bars] if drawn else [bars]
    figure = Figure(figsize=(width, sum(heights) + 0.85), layout="constrained")
    with _without_warnings():
        _head_line(figure, explanation)
        rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        if drawn:
            _draw_images(rows[0], explanation, shown if with_maps else ())
        _draw_bars(rows[-1].subplots(), explanation, shown)
    return figure


def _head_line(figure: Any, explanation: Explanation) -> None:
    names = explanation.class_names
    called = f"{short(names[explanation.predicted])} ({explanation.probability():.1%})"
    parts = [f"called {called} by the {explanation.head_name}"]
    if explanation.label is not None:
        parts.append(f"labelled {short(names[explanation.label])}")
    if explanation.dense_predicted != explanation.predicted:
        parts.append(f"the network itself says {short(names[explanation.dense_predicted])}")
    if explanation.outside:
        parts.append("unlike the analysed images")
    text = f"{short(explanation.image)}\n{' · '.join(parts)}"
    figure.suptitle(text, fontsize=10, parse_math=False, x=0.02, ha="left")


def _draw_images(row: Any, explanation: Explanation, shown: Any) -> None:
    assert explanation.picture is not None
    axes = row.subplots(1, max(1 + len(shown), 1 + SHOWN), squeeze=False)[0]
    for panel in axes:
        panel.axis("off")
    axes[0].imshow(enlarged(explanation.picture))
    axes[0].set_title("what it saw", fontsize=9)
    if shown:
        of = short(explanation.class_names[explanation.terms.of])
        row.supxlabel(f"orange speaks for {of}, blue against", fontsize=9, parse_math=False)
    for panel, term, drawn in zip(axes[1:], shown, explanation.overlays(), strict=False):
        panel.imshow(drawn)
        panel.set_title(f"feature {term.feature}\nvalue {term.value:.3g}", fontsize=9)


def _draw_bars(axes: Any, explanation: Explanation, shown: Any) -> None:
    terms = explanation.terms
    figure_width = axes.get_figure(root=True).get_figwidth()
    bars = [
        (_minus(f"feature {t.feature}:  {t.value:.3g} × {t.weight:+.3g}"), t.contribution)
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
        text = _minus(f" {value:+.3f} ")
        axes.text(value, place, text, va="center", ha=side, fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(_total(explanation), fontsize=10, loc="left", parse_math=False)
    axes.set_xlabel(
        textwrap.fill(explanation.reasoned(), int(CHARACTERS * figure_width)),
        fontsize=9,
        parse_math=False,
    )


def _total(explanation: Explanation) -> str:
    terms, names = explanation.terms, explanation.class_names
    if terms.against is None:
        return f"logit of {short(names[terms.of])} = {_minus(f'{terms.total:.3f}')}, the sum of"
    of, against = short(names[terms.of]), short(names[terms.against])
    return f"logit of {of} − logit of {against} = {_minus(f'{terms.total:+.3f}')}, the sum of"


def _minus(text: str) -> str:
    """Numbers with the sign that people write."""
    return text.replace("-", "−")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Glyphs that the font lacks are drawn as boxes; nobody can mend that here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield

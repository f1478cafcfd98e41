"""Plotting: how each picture by matplotlib is made, the same whatever the user's own settings are.

A notebook's `MPLBACKEND`, a matplotlibrc, a style sheet or fonts without Chinese letters belong to
the user: pictures are drawn by Agg in a style of their own, text is text (`$` opens no formula),
and letters that the font lacks come from an installed font that has them.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from penult.errors import InputError
from penult.storage import write_atomically
from penult.text import some

Format = Literal["png", "svg", "pdf"]
FORMATS: tuple[str, ...] = get_args(Format)
PICTURES = tuple(f".{kind}" for kind in FORMATS)
FONT = "DejaVu Sans"  # comes with matplotlib
DPI = 150
LACKING_NAMED = 6

# The same picture gives the same bytes; text stays text in SVG and in PDF.
_SETTINGS: dict[str, Any] = {
    "font.family": [FONT],
    "text.parse_math": False,
    "svg.hashsalt": "penult",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "pdf.use14corefonts": False,
}
_UNDATED: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}

Figure = Any
T = TypeVar("T")


def require_picture(path: Path) -> str:
    """Format of a picture by its name; refuses others before the long work starts.

    Raises:
        InputError: the name does not end in one of `FORMATS`, or is a folder's.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise InputError(f"{path}: expected a name that ends in .png, .svg or .pdf")
    if path.is_dir():
        raise InputError(f"{path} is a folder: expected the name of a picture")
    return kind


@contextmanager
def plain_style() -> Iterator[None]:
    """matplotlib's own defaults and `_SETTINGS`, in place of what the user has set.

    Figures are made and saved within it; the user's settings are back afterwards.
    """
    mpl = import_matplotlib()
    with mpl.rc_context(), warnings.catch_warnings():
        # Which letters no font has is said in one line by `with_fonts`.
        warnings.filterwarnings("ignore", message="Glyph")
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches: no pyplot, no display, no state that outlives the call."""
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def with_fonts(figure: Figure) -> Figure:
    """The figure, each of its letters in a font that has it; warns of letters that none has."""
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    families, lacking = fonts_for("".join(text.get_text() for text in texts))
    if len(families) > 1:
        for text in texts:
            text.set_fontfamily(families)
    if lacking:
        warnings.warn(
            f"no installed font has {some(lacking, LACKING_NAMED)}: drawn as boxes; install a "
            "font that has them, such as Noto Sans CJK for Chinese, Japanese and Korean",
            stacklevel=2,
        )
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, SVG or PDF, by the file's name."""
    kind = require_picture(path)
    about = _UNDATED.get(kind, {})
    with plain_style():
        write_atomically(
            path, lambda file: figure.savefig(file, format=kind, dpi=DPI, metadata=about)
        )


def fonts_for(text: str) -> tuple[list[str], list[str]]:
    """Families that together have the letters of a text, the usual one first.

    Returns:
        The families, and the letters that no installed font has.
    """
    from matplotlib.font_manager import findfont

    families = [FONT]
    lacking = {letter for letter in text if not letter.isspace()} - _letters(findfont(FONT))
    while lacking:
        found = _best(lacking)
        if found is None:
            break
        name, letters = found
        families.append(name)
        lacking -= letters
    return families, sorted(lacking)


def _best(wanted: set[str]) -> tuple[str, frozenset[str]] | None:
    """The installed family with most of some letters, an upright one of usual weight if it can."""
    found = None
    best = (0, False)
    for entry in _installed():
        letters = _letters(entry.fname)
        n = len(wanted & letters)
        if n and (n, _is_usual(entry)) > best:
            best, found = (n, _is_usual(entry)), (entry.name, letters)
    return found


def _is_usual(entry: Any) -> bool:
    return entry.style == "normal" and entry.weight in (400, "normal", "regular", "book")


@cache
def _installed() -> tuple[Any, ...]:
    """All fonts, also those installed after matplotlib made its list of them."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {entry.fname for entry in fontManager.ttflist}
    for path in findSystemFonts():
        if path not in known:
            with suppress(Exception):  # a font file that cannot be read is no font
                fontManager.addfont(path)
    found = (entry for entry in fontManager.ttflist if not is_placeholder(entry.name))
    return tuple(sorted(found, key=lambda entry: (entry.name, entry.fname)))


def is_placeholder(name: str) -> bool:
    """Whether a family only shows which letters are lacking: a box for each."""
    plain = name.lower().replace(" ", "").lstrip(".")
    return plain.startswith(("lastresort", "unicodebmpfallback", "adobeblank"))


@cache
def _letters(path: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (RuntimeError, OSError, ValueError):
        return frozenset()


def import_matplotlib() -> Any:
    """matplotlib, also where `MPLBACKEND` names a backend that is not installed here.

    A notebook's kernel sets it for all that it starts; importing matplotlib then fails, also for
    libraries that import it by themselves: this is called before theirs.
    """
    if "matplotlib" in sys.modules:
        return sys.modules["matplotlib"]
    backend = os.environ.pop("MPLBACKEND", None)
    # What an import that failed has left behind would break the next one.
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        del sys.modules[name]
    try:
        mpl = importlib.import_module("matplotlib")
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend is not None:
        with suppress(ValueError):  # for the user's own plots, as importing it would have done
            mpl.rcParams["backend"] = backend
    return mpl


def with_matplotlib(action: Callable[[], T]) -> T:
    """Run `action`, and once more with matplotlib imported if it died of `MPLBACKEND`.

    Lets a user's file import matplotlib as it likes, at no cost for those that do not. `action` may
    run twice, so it must leave nothing behind when it fails.
    """
    try:
        return action()
    except Exception as error:
        if "matplotlib" in sys.modules or not _refuses_backend(error):
            raise
    import_matplotlib()
    return action()


def _refuses_backend(error: BaseException | None) -> bool:
    """Whether matplotlib's refusal of a backend stands behind `error`."""
    while error is not None:
        if isinstance(error, ValueError) and "Key backend" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False

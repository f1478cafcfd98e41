"""Pictures by matplotlib: what the user has set for it, and letters that its font lacks."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import pytest
from fontTools.fontBuilder import FontBuilder  # type: ignore[import-untyped]
from fontTools.pens.ttGlyphPen import TTGlyphPen  # type: ignore[import-untyped]
from matplotlib import font_manager

from penult import plotting
from penult.errors import InputError
from penult.plotting import (
    FONT,
    fonts_for,
    is_placeholder,
    new_figure,
    plain_style,
    require_picture,
    save_figure,
    with_fonts,
)

DRAWN = """
import sys
from pathlib import Path
from penult.plotting import new_figure, plain_style, save_figure
with plain_style():
    figure = new_figure(2, 1)
    figure.subplots().set_title(sys.argv[2])
save_figure(figure, Path(sys.argv[1]))
"""


def drawn(path: Path, title: str, **environment: str) -> str:
    """What a process of its own says that draws a title."""
    done = subprocess.run(
        [sys.executable, "-c", DRAWN, str(path), title],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_users_settings_do_not_reach_the_picture(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    settings = ("text.usetex: True", "font.family: No Such", "savefig.format: pdf", "font.size: 40")
    (tmp_path / "config" / "matplotlibrc").write_text("\n".join(settings))
    drawn(tmp_path / "plain.svg", "cost in $ and in $", MPLBACKEND="")
    drawn(
        tmp_path / "set.svg",
        "cost in $ and in $",
        MPLBACKEND="module://matplotlib_inline.no_such_backend",
        MPLCONFIGDIR=str(tmp_path / "config"),
    )
    assert (tmp_path / "set.svg").read_bytes() == (tmp_path / "plain.svg").read_bytes()
    assert "cost in $ and in $" in (tmp_path / "set.svg").read_text()


def test_the_users_settings_are_back_afterwards(tmp_path: Path) -> None:
    with mpl.rc_context({"font.size": 33.0, "text.usetex": False}):
        before = dict(mpl.rcParams)
        with plain_style():
            assert mpl.rcParams["font.size"] == 10
            figure = new_figure(2, 1)
        save_figure(figure, tmp_path / "x.png")
        assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
@pytest.mark.parametrize("title", ["$", "a $b_{ c", r"\frac{1}", "$x$", "100 % of $5 & $6", "^_#~"])
def test_names_are_text_and_the_same_picture_has_the_same_bytes(
    tmp_path: Path, kind: str, title: str
) -> None:
    for name in ("one", "two"):
        with plain_style():
            figure = new_figure(2, 1)
            axes = figure.subplots()
            axes.set_title(title)
            axes.set_xticks([0], [title])
            axes.plot([0, 1], label=title)
            axes.legend()
            with_fonts(figure)
        save_figure(figure, tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()


@pytest.fixture
def only_known_fonts(monkeypatch: pytest.MonkeyPatch) -> list[font_manager.FontEntry]:
    """Of all fonts those alone that come with matplotlib, and those that a test adds."""
    entries = [e for e in font_manager.fontManager.ttflist if "DejaVu" in e.name]
    monkeypatch.setattr(plotting, "_installed", lambda: entries)
    return entries


def font_with(letters: str, path: Path, style: str = "Regular") -> None:
    """A font of empty boxes for some letters."""
    builder = FontBuilder(1000, isTTF=True)
    names = [".notdef", *(f"u{ord(letter):X}" for letter in letters)]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"u{ord(letter):X}" for letter in letters})
    builder.setupGlyf({name: TTGlyphPen(None).glyph() for name in names})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": style})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


def test_letters_come_from_an_installed_font_that_has_them(
    tmp_path: Path, only_known_fonts: list[font_manager.FontEntry]
) -> None:
    assert fonts_for("plain, Ünïcode, ελληνικά 97 %") == ([FONT], [])
    for name, letters in (("Few", "日"), ("Most", "日本"), ("Other", "한")):
        font_with(letters, tmp_path / f"{name}.ttf")
        font_manager.fontManager.addfont(tmp_path / f"{name}.ttf")
        only_known_fonts.append(font_manager.fontManager.ttflist[-1])
    assert fonts_for("cat 日本") == ([FONT, "Most"], [])
    assert fonts_for("日本 한\u2003글") == ([FONT, "Most", "Other"], ["글"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with plain_style():
            figure = new_figure(2, 1)
            title = figure.subplots().set_title("日本, a class")
            with_fonts(figure)
        save_figure(figure, tmp_path / "x.png")
    assert title.get_fontfamily() == [FONT, "Most"]


def test_letters_that_no_font_has_are_named_once(
    tmp_path: Path, only_known_fonts: list[font_manager.FontEntry]
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with plain_style():
            figure = new_figure(2, 1)
            axes = figure.subplots()
            axes.set_title("日本語 日本語 日本語 x")
            axes.set_xlabel("漢字仮名交")
            with_fonts(figure)
        save_figure(figure, tmp_path / "x.png")
    (warning,) = said
    assert "no installed font has 交, 仮, 名, 字, 日, 本 and 2 more: drawn as boxes" in str(
        warning.message
    )


def test_fonts_that_only_show_what_is_lacking_are_no_fonts() -> None:
    assert is_placeholder(".LastResort")
    assert is_placeholder("Last Resort High-Efficiency")
    assert not is_placeholder("Noto Sans CJK JP")
    assert not any("Last Resort" in entry.name for entry in plotting._installed())


def test_other_kinds_of_pictures_are_refused(tmp_path: Path) -> None:
    for name in ("x.jpg", "x", "x.png.exe"):
        with pytest.raises(InputError, match=r"expected a name that ends in \.png, \.svg or \.pdf"):
            require_picture(tmp_path / name)
    assert require_picture(tmp_path / "x.PDF") == "pdf"
    (tmp_path / "x.png").mkdir()
    with pytest.raises(InputError, match="is a folder: expected the name of a picture"):
        require_picture(tmp_path / "x.png")

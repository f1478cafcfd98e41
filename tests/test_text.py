"""Names from data in sentences, tables and Markdown: as they are, and without orders."""

from __future__ import annotations

import html
import re

import pytest

from penult.cli.output import allow_any_character
from penult.text import called, folded, in_markdown

NO_SPACE = "\u200b"


def as_github_reads_it(text: str) -> str:
    """The text of a page: escapes and character references are gone by then."""
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text))


@pytest.mark.parametrize(
    "name", ["@team", "a@b.org", "see #12", "org/repo#3", "GH-4", "https://a.org", "www.a.org"]
)
def test_names_call_nobody_and_link_nowhere(name: str) -> None:
    """GitHub looks for mentions, issues and addresses after Markdown has been read."""
    read = as_github_reads_it(in_markdown(name))
    assert not re.search(r"@\w|#\d|GH-\d|://\w|www\.\w", read)
    assert read.replace(NO_SPACE, "") == name, "what a person sees is the same"


@pytest.mark.parametrize("name", ["a:b", "10 # of 3", "wwwide", "right", "x @ y", "C#"])
def test_names_without_a_meaning_there_stay(name: str) -> None:
    assert as_github_reads_it(in_markdown(name)) == name


def test_a_name_of_blanks_is_told() -> None:
    assert (called(""), called(" \t"), called("a\nb")) == ("(no name)", "(no name)", "a·b")


def test_folded_names_differ_in_what_counts() -> None:
    assert folded("Café_au  LAIT ") == folded("cafe\u0301 au lait") == folded("CAFÉ au lait")
    assert folded("STRASSE") == folded("straße")
    assert len({folded(name) for name in ("cat", "cats", "cât", "ca t")}) == 4


def test_outputs_without_unicode_get_plain_spaces() -> None:
    allow_any_character()
    assert "95\u00a0% → x".encode("ascii", "penult.plain") == b"95 % -> x"

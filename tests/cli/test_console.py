"""What commands say on standard error, and what standard output holds in any encoding."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from penult.cli import console
from penult.cli.console import begun_when_heard, progress_bars
from penult.cli.output import allow_any_character, print_json
from penult.cli.values import device_of
from penult.errors import InputError


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal is told."""
    text = io.StringIO()
    seen = Console(file=text, force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(console, "errors", seen)
    return text


def test_a_stage_has_a_name_before_it_has_a_length(said: io.StringIO) -> None:
    with progress_bars("opening the run") as begin:
        assert "opening the run" in said.getvalue()
        begin("sums")
        assert "sums" in said.getvalue()
        heard = begin("heads")
        heard(8, 8)
    last = said.getvalue().split("\x1b[2K")[-1]
    assert "8 of 8" in last
    assert "sums" not in last, "a stage without a length is over when the next one is heard of"


def test_stages_may_be_begun_before_they_start(said: io.StringIO) -> None:
    with progress_bars() as begin:
        train, held_out = begin("train"), begin("eval")
        train(5, 5)
        held_out(3, 3)
        train(5, 5)
    last = "".join(said.getvalue().split("\x1b[2K")[-2:])
    assert "5 of 5" in last
    assert "3 of 3" in last


def test_a_log_gets_a_line_of_what_takes_more_than_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = io.StringIO()
    monkeypatch.setattr(console, "FIRST_LINE", 0.05)
    monkeypatch.setattr(console, "errors", Console(file=text, width=100))
    with progress_bars("opening") as begin:
        time.sleep(0.1)
        assert text.getvalue() == "", "a command that is refused says one line"
        begin("heads")(3, 1000)
        until = time.monotonic() + 10
        while not text.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    assert re.fullmatch(r"heads: 3 of 1,000, \d+ s", text.getvalue().splitlines()[0])


def test_a_log_is_never_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(console, "FIRST_LINE", 0.02)
    monkeypatch.setattr(console, "LINES_APART", 1000.0)
    monkeypatch.setattr(console, "MOST_APART", 0.05)
    monkeypatch.setattr(console, "errors", Console(file=text, width=100))
    with progress_bars() as begin:
        begin("heads")(3, 1000)
        until = time.monotonic() + 10
        while text.getvalue().count("\n") < 3 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(re.findall(r"^heads: 3 of 1,000, \d+ s$", text.getvalue(), re.M)) >= 3


def test_a_log_is_spared_what_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(console, "FIRST_LINE", 1000)
    monkeypatch.setattr(console, "errors", Console(file=text, width=100))
    with progress_bars() as begin:
        begin("sums")(1, 1)
    assert text.getvalue() == ""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "gbk", "utf-8"])
def test_a_page_is_written_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    allow_any_character()
    print("━━╸ 10 × 64 … 猫 é")
    print_json({"猫": "é"})
    sys.stdout.flush()
    text = raw.getvalue().decode(encoding)
    assert json.loads(text[text.index("{") :]) == {"猫": "é"}
    if encoding == "ascii":
        assert text.startswith("--- 10 x 64 ... \\u732b \\u00e9")
    if encoding == "utf-8":
        assert text.startswith("━━╸ 10 × 64 … 猫 é")


@pytest.mark.parametrize("name", ["mps", "meta", "abacus", "cuda:x", "cuda:99", "xpu"])
def test_a_device_that_is_not_there_is_one_short_line(name: str) -> None:
    with pytest.raises(InputError, match=r"^--device .* cannot be used.*expected auto or cpu") as e:
        device_of(name)
    assert len(str(e.value)) < 200
    assert "\n" not in str(e.value)


def test_a_stage_that_begins_when_it_is_heard_of_ends_in_another() -> None:
    begun: list[tuple[str, list[tuple[int, int]]]] = []

    def begin(name: str) -> Callable[[int, int], None]:
        told: list[tuple[int, int]] = []
        begun.append((name, told))
        return lambda done, total: told.append((done, total))

    heard = begun_when_heard(begin, "images", "writing the page")
    assert begun == []
    for done in (0, 1, 2):
        heard(done, 2)
    assert begun == [("images", [(0, 2), (1, 2), (2, 2)]), ("writing the page", [])]

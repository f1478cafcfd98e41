"""How values are put into words: percents, names on one line, lists cut where they are long."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from penult.errors import InputError

_DIGITS = re.compile(r"(\d+)")
_NO_SPACE = "&#8203;"  # a space of no width
LONGEST_NUMBER = 18  # digits of a number that a user gives


def percent(accuracy: float) -> str:
    """A fraction as percent with two decimals."""
    return f"{100 * accuracy:.2f}"


def one_line(text: str, longest: int | None = None) -> str:
    """Text from data on one line, control characters as dots, cut where it is very long."""
    line = "".join(c if c.isprintable() else "·" for c in text)
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"


def called(name: str, longest: int = 60) -> str:
    """A name from data as it stands in sentences and tables, also one of blanks."""
    return one_line(name, longest) if name.strip() else "(no name)"


def folded(name: str) -> str:
    """A name as people compare it: whatever its case, blanks, underscores, and form of Unicode."""
    plain = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
    return " ".join(plain.replace("_", " ").split())


def in_markdown(text: str, longest: int = 200) -> str:
    """Text from data that gives Markdown and HTML no orders, on one line."""
    line = unbroken(one_line(text, longest)).replace("\\", "\\\\")
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([`*_\[\]|#~!@])", r"\\\1", line)
    # GitHub looks for people, issues and addresses where the escapes are gone already.
    return re.sub(r"(@|#|\bwww(?=\.)|\bGH(?=-)|:(?=//))(?=\S)", rf"\1{_NO_SPACE}", line)


def as_code(text: str, longest: int = 200) -> str:
    """Text from data as code within a line of Markdown, whatever marks it holds."""
    line = one_line(text, longest)
    marks = "`" * (_longest_run(line) + 1)
    apart = " " if len(marks) > 1 else ""
    return f"{marks}{apart}{line}{apart}{marks}"


def code_block(text: str, language: str = "") -> str:
    """Text of several lines as a block of code in Markdown, whatever marks it holds."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def counted(name: str) -> list[tuple[int, int, str]]:
    """Sort key of a person who counts: "class 2" comes before "class 10"."""
    parts = _DIGITS.split(name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def unbroken(text: str) -> str:
    """Text in which no line ends between a number and its percent sign."""
    return re.sub(r"(?<=\d) (?=%)", "\u00a0", text)


def some(names: Sequence[str], limit: int = 5) -> str:
    """Name the first few of a long list: `a, b, c and 17 more`."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def number_of(n: int, things: str) -> str:
    """How many there are of what is named in the plural: `1 sample`, `2,000 samples`."""
    one = things[:-2] if things.endswith("sses") else things.removesuffix("s")
    return f"{n:,} {one if n == 1 else things}"


def described(error: BaseException) -> str:
    """Kind of an error and what it says, cut where it goes on for long."""
    message = " ".join(str(error).split())
    message = message.rstrip(".") if len(message) <= 300 else f"{message[:300]} …"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def duration(seconds: float) -> str:
    """Some seconds as a person says them: "12 s", "3 min", "2.5 h"; 1 s at least."""
    if seconds < 100:
        return f"{max(1.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Names that could be meant by one that is not known: ends of dotted names, then the like."""
    known = [*known]
    ends = [other for other in known if other.endswith(f".{name}")]
    same = [other for other in known if other.casefold() == name.casefold()]
    like = get_close_matches(name, known, 3, 0.5)
    return [*dict.fromkeys([*ends, *same, *like])]


def is_number(text: str) -> bool:
    """Whether a user's text is a number, and not so long that it cannot be one of anything."""
    return text.isdecimal() and len(text) <= LONGEST_NUMBER


def class_index(given: str | int, class_names: Sequence[str]) -> int:
    """A class by its name, else by its number.

    Raises:
        InputError: there is none; says which names are nearest.
    """
    names = list(class_names)
    if isinstance(given, str) and given in names:
        return names.index(given)
    if not isinstance(given, str) or is_number(given):
        number = int(given)
        if 0 <= number < len(names):
            return number
        raise InputError(f"classes are numbered from 0 to {len(names) - 1}, found {number}")
    near = nearest(given, names)
    hint = f"did you mean {some(near)}?" if near else f"there are {some(names)}"
    raise InputError(f"no class is called {given!r}: {hint}")

"""How values are put into words: percents, names on one line, lists cut where they are long."""

from __future__ import annotations

from collections.abc import Sequence


def percent(accuracy: float) -> str:
    """A fraction as percent with two decimals."""
    return f"{100 * accuracy:.2f}"


def one_line(text: str, longest: int | None = None) -> str:
    """Text from data on one line, control characters as dots, cut where it is very long."""
    line = "".join(c if c.isprintable() else "·" for c in text)
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"


def some(names: Sequence[str], limit: int = 5) -> str:
    """Name the first few of a long list: `a, b, c and 17 more`."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


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

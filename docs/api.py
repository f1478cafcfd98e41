"""Write docs/api.md, the public names of penult with their docstrings: `make docs`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import penult

HERE = Path(__file__).parent
ROOMS = {
    "data": "Data",
    "network": "Networks and their heads",
    "features": "Features and influence",
    "heads": "Sparse heads",
    "runs": "Runs",
    "measure": "Measures",
    "explain": "Explanations",
    "edit": "Edits",
    "report": "Reports",
    "diff": "Comparisons of networks",
    "trackers": "Trackers",
    "live": "The live page",
    "export": "Exports",
    "errors": "Errors",
}
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples):")
ITEM = re.compile(r"(\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*): (.*)")


def document() -> str:
    """The page as Markdown."""
    lines = [
        "# The Python interface",
        "",
        "Everything on this page is imported from `penult`. The page is made from the docstrings "
        "by `make docs`.",
    ]
    names = {name: getattr(penult, name) for name in dir(penult) if name in _public()}
    for room, title in ROOMS.items():
        inside = [name for name in names if _public()[name].split(".")[1] == room]
        if inside:
            lines += ["", f"## {title}"]
        for name in sorted(inside, key=str.lower):
            lines += ["", *_entry(name, names[name], _public()[name])]
    return "\n".join(lines) + "\n"


def _public() -> dict[str, str]:
    homes: dict[str, str] = vars(penult)["_HOMES"]
    return homes


def _entry(name: str, value: Any, home: str) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    yield f"`src/{home.replace('.', '/')}.py`"
    yield ""
    if not callable(value):
        yield f"{type(value).__name__}: {', '.join(f'`{one}`' for one in value)}"
        return
    is_plain_class = inspect.isclass(value) and value.__init__ is object.__init__
    if not is_plain_class and not (inspect.isclass(value) and issubclass(value, Exception)):
        yield from ("```python", _signature(name, value), "```", "")
    yield from markdown(inspect.getdoc(value) or "")
    if inspect.isclass(value):
        yield from _members(value)


def _members(owner: type) -> Iterator[str]:
    """One line for each public method and property that the class itself defines."""
    lines = []
    for name, raw in vars(owner).items():
        text = inspect.getdoc(inspect.getattr_static(owner, name))
        wrapped = isinstance(raw, (classmethod, staticmethod, property))
        if name.startswith("_") or not text or not (wrapped or inspect.isfunction(raw)):
            continue
        shown = name if isinstance(raw, property) else _call(name, getattr(owner, name))
        lines.append(f"- `{shown}`: {' '.join(text.split(chr(10) + chr(10))[0].split())}")
    if lines:
        yield from ("", "**Methods and properties**", "", *lines)


def _call(name: str, function: Callable[..., Any]) -> str:
    """How a method is called, without types."""
    parts = _parameters(inspect.signature(function), typed=False)
    return f"{name}({', '.join(parts)})"


def _signature(name: str, function: Callable[..., Any]) -> str:
    """How something is called, with types."""
    found = inspect.signature(function)
    parts = list(_parameters(found, typed=True))
    end = ")" if inspect.isclass(function) else f") -> {_type(found.return_annotation)}"
    line = f"{name}({', '.join(parts)}{end}"
    return line if len(line) <= 96 else "\n".join([f"{name}(", *(f"    {p}," for p in parts), end])


def _parameters(signature: inspect.Signature, *, typed: bool) -> Iterator[str]:
    starred = False
    for one in signature.parameters.values():
        if one.name == "self":
            continue
        if one.kind is one.KEYWORD_ONLY and not starred:
            yield "*"
        starred = starred or one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        stars = "*" * (one.kind is one.VAR_POSITIONAL) + "**" * (one.kind is one.VAR_KEYWORD)
        kind = f": {_type(one.annotation)}" if typed and one.annotation is not one.empty else ""
        equals = " = " if kind else "="
        yield f"{stars}{one.name}{kind}" + (
            "" if one.default is one.empty else f"{equals}{_value(one.default)}"
        )


def _type(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "Any")


def _value(default: Any) -> str:
    if isinstance(default, (str, int, bool, type(None), tuple)):
        return repr(default)
    return f"{default:.6g}" if isinstance(default, float) else str(default)


def markdown(text: str) -> Iterator[str]:
    """A docstring with sections (`Args:`) as Markdown with lists."""
    section = ""
    for line in text.splitlines():
        depth, words = len(line) - len(line.lstrip()), line.strip()
        title = SECTION.fullmatch(line)
        item = ITEM.match(words)
        if title:
            section = title[1]
            yield from (f"**{section}**", "")
        elif not section or not words:
            yield line
        elif depth == 4:
            yield f"- `{item[1]}`: {item[2]}" if item else f"- {words}"
        else:
            yield " " * (depth - 6 if words.startswith("- ") else min(depth - 6, 4)) + words


if __name__ == "__main__":
    (HERE / "api.md").write_text(document(), encoding="utf-8")

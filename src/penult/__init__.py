"""penult: which few penultimate features decide each class of a trained image classifier.

The public names and the modules in which they live are listed in `__init__.pyi`; a module is
imported when the first of its names is asked for, so that `import penult` costs nothing. A room
gives its own part of them too: `penult.features.Features` is `penult.Features`.
"""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

_HOMES = {
    alias.name: statement.module
    for statement in ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8")).body
    if isinstance(statement, ast.ImportFrom) and statement.module
    for alias in statement.names
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'penult' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def names_of(room: str) -> Callable[[str], Any]:
    """The `__getattr__` by which a room, such as `penult.features`, gives its public names."""

    def get(name: str) -> Any:
        if not _HOMES.get(name, "").startswith(f"{room}."):
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return __getattr__(name)

    return get


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""penult: which few penultimate features decide each class of a trained image classifier.

The public names and the modules in which they live are listed in `__init__.pyi`; a module is
imported when the first of its names is asked for, so that `import penult` costs nothing.
"""

import ast
from importlib import import_module
from pathlib import Path

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


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

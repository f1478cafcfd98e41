"""The rooms of the package: no import runs back up, none in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

# Lower rooms first: a room imports from itself and from those before it.
ROOMS = (
    *("errors", "text", "intervals", "storage", "plotting", "extras", "progress", "user_code"),
    *("data", "network", "features", "heads", "runs", "cluster", "measure", "explain", "edit"),
    *("report", "diff", "trackers", "export", "live"),
    *("demo", "cli", "command", "__main__", "__init__"),
)


@pytest.fixture(scope="module")
def imports(repository: Path) -> dict[str, set[str]]:
    """The modules of the package, each with those of the package that it imports."""
    source = repository / "src"
    modules = {
        ".".join(path.relative_to(source).with_suffix("").parts): path
        for path in source.glob("penult/**/*.py")
    }
    return {
        name: _imported(path) & {one.removesuffix(".__init__") for one in modules}
        for name, path in modules.items()
    }


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found - {"penult"}


def test_every_room_has_its_place(imports: dict[str, set[str]]) -> None:
    assert {name.split(".")[1] for name in imports} == set(ROOMS)


def test_no_import_runs_from_a_lower_to_a_higher_room(imports: dict[str, set[str]]) -> None:
    place = {room: i for i, room in enumerate(ROOMS)}
    back = [
        f"{name} imports {other}"
        for name, others in imports.items()
        for other in others
        if place[other.split(".")[1]] > place[name.split(".")[1]]
    ]
    assert back == []


def test_no_imports_run_in_a_circle(imports: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")

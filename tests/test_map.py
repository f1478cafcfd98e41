"""What helps a newcomer to find the way: unique names, a map that is true, modules of one size."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path


def modules(repository: Path) -> dict[Path, ast.Module]:
    """The syntax of every module of the package."""
    return {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((repository / "src").glob("penult/**/*.py"))
    }


def test_no_two_classes_have_one_name(repository: Path) -> None:
    places = defaultdict(list)
    for path, tree in modules(repository).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name.strip("_")].append(path.relative_to(repository).as_posix())
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_every_module_says_what_it_holds(repository: Path) -> None:
    for path, tree in modules(repository).items():
        if path.stat().st_size:
            assert len((ast.get_docstring(tree) or "").split()) > 3, path


def test_files_that_the_map_for_contributors_names_are_there(repository: Path) -> None:
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:pyi?|js|md))`", text)
    assert len(names) > 20
    for name in names:
        places = (repository / name, repository / "src" / "penult" / name)
        assert any(place.is_file() for place in places), name


def test_every_room_has_a_line_in_the_readme(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)/` \|", text, re.M)
    rooms = {path.parent.name for path in (repository / "src" / "penult").glob("*/__init__.py")}
    assert set(listed) == rooms
    assert len(listed) == len(set(listed))

"""The public names: where they are, what they cost, and that the page about them is current."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import penult

PUBLIC: list[str] = vars(penult)["__all__"]
PATHS = ("fit_path", "Plan", "HeadPath", "tune", "SparseHeadClassifier", "save_features", "Run")


@pytest.mark.parametrize("name", [*PATHS, "measure_run", "Report", "Explanation", "find_head"])
def test_what_a_person_reads_about_is_imported_from_penult(name: str) -> None:
    space: dict[str, object] = {}
    exec(f"from penult import {name}", space)
    assert space[name] is getattr(penult, name)
    assert name in PUBLIC


def test_a_room_gives_its_part_of_the_public_names() -> None:
    from penult import features, heads

    assert features.Features is penult.Features
    assert heads.fit_path is penult.fit_path
    with pytest.raises(AttributeError, match=r"'penult\.features' has no attribute 'fit_path'"):
        features.fit_path  # noqa: B018


def test_every_public_name_is_there_and_documented() -> None:
    assert set(PUBLIC) <= set(dir(penult))
    for name in PUBLIC:
        assert (getattr(penult, name).__doc__ or "").strip(), name


def test_a_name_that_is_not_there_is_said_as_python_says_it() -> None:
    with pytest.raises(AttributeError, match="module 'penult' has no attribute 'nothing'"):
        penult.nothing  # type: ignore[attr-defined] # noqa: B018


def test_no_public_name_hides_a_room(repository: Path) -> None:
    rooms = {path.stem for path in (repository / "src" / "penult").iterdir()}
    assert rooms.isdisjoint(PUBLIC)


def test_the_import_loads_nothing_until_a_name_is_asked_for() -> None:
    heavy = "('torch', 'sklearn', 'numpy')"
    code = f"import sys, penult.features; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_command_line_starts_without_what_only_some_commands_need() -> None:
    heavy = ["sklearn", "pandas", "pyarrow", "torchvision", "timm", "transformers", "captum"]
    heavy += ["scipy", "jinja2", "matplotlib", "torch._dynamo"]
    code = f"import sys, penult.cli.app; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_names_that_the_documents_use_are_public(repository: Path) -> None:
    modules = {path.stem for path in (repository / "src" / "penult").iterdir()}
    for page in (repository / "README.md", *sorted((repository / "docs").glob("*.md"))):
        for name in re.findall(r"\bpenult\.([a-zA-Z]\w*)\b(?!:)", page.read_text("utf-8")):
            assert name in PUBLIC or name in modules, f"{page.name}: penult.{name}"


def test_the_page_of_the_interface_is_current(repository: Path) -> None:
    made = runpy.run_path(str(repository / "docs" / "api.py"))["document"]()
    kept = (repository / "docs" / "api.md").read_text(encoding="utf-8")
    left = [name for name in penult.__all__ if f"\n### {name}\n" not in made]
    assert left == [], "public names of a room that docs/api.py does not list"
    assert kept == made, "run `make docs`"

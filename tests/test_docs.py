"""What the documents show runs, and what they list is what there is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import typer

import penult
from penult.cli.app import app
from penult.features.influence import SCORES


def test_the_python_of_the_readme_runs(
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    digits: penult.Run,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits.folder, "penult-demo")
    text = (repository / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    dense, sparse = eval(capsys.readouterr().out)
    assert dense > 0.99
    assert 0.5 < sparse <= dense


def test_every_command_is_documented_and_every_documented_one_is_there(repository: Path) -> None:
    text = (repository / "docs" / "commands.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^## penult (\w+)", text, re.M))
    assert documented == set(typer.main.get_group(app).commands)


def test_every_score_is_documented(repository: Path) -> None:
    text = (repository / "docs" / "method.md").read_text(encoding="utf-8")
    table = set(re.findall(r"^\| `(\w+)` \|", text, re.M))
    assert table >= set(SCORES)


def test_files_that_the_readme_names_are_there(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"\(`([\w/]+\.py)`\)", text):
        assert (repository / "src" / "penult" / name).is_file(), name
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (repository / link).exists(), link

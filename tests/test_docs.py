"""What the documents show runs, and what they list is what there is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import typer

import penult
from command import penult as penult_command
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


PAGES = ("README.md", "docs/commands.md", "docs/measures.md", "CONTRIBUTING.md")


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_a_page_shows_have_the_options_they_are_shown_with(
    repository: Path, page: str
) -> None:
    known = typer.main.get_group(app).commands
    text = (repository / page).read_text(encoding="utf-8")
    shown = [*re.findall(r"^penult (\w+)(.*)$", text, re.M)]
    shown += re.findall(r"`penult (\w+)([^`]*)`", text)
    for name, rest in shown:
        if name == "COMMAND":
            continue
        options = {option for one in known[name].params for option in one.opts}
        given = re.findall(r"(?<![\w-])--?[a-z][\w-]*", rest.split("#")[0])
        assert set(given) <= options, f"penult {name}{rest}"


def test_every_option_is_explained_in_the_docs(repository: Path) -> None:
    pages = ("commands.md", "data.md", "edit.md", "measures.md")
    text = "".join((repository / "docs" / page).read_text(encoding="utf-8") for page in pages)
    said = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
    for name, command in typer.main.get_group(app).commands.items():
        options = [option for one in command.params for option in one.opts[:1]]
        unsaid = {option for option in options if option.startswith("--")} - said - {"--help"}
        assert not unsaid, f"penult {name}: {', '.join(sorted(unsaid))} stand on no page of docs/"


def test_commands_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: penult.Run
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits.folder, "penult-demo")
    assert penult_command("show", "penult-demo") == 0
    assert penult_command("explain", "penult-demo", "eval:1", "--no-maps", "--fast") == 0


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

"""The workflows in the docs are YAML, and their commands have the options that they name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command import penult

FENCE = re.compile(r"```yaml\n(.*?)```", re.DOTALL)


def commands(value: Any) -> Iterator[str]:
    """Every line of a workflow that calls penult."""
    if isinstance(value, dict):
        for part in value.values():
            yield from commands(part)
    elif isinstance(value, list):
        for part in value:
            yield from commands(part)
    elif isinstance(value, str) and value.startswith("penult "):
        yield value


def test_workflows_of_the_docs_are_valid(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = pytest.importorskip("yaml")
    text = (repository / "docs" / "diff.md").read_text(encoding="utf-8")
    github, gitlab = (yaml.safe_load(fence) for fence in FENCE.findall(text))
    steps = github["jobs"]["compare"]["steps"]
    assert all(step.keys() & {"run", "uses"} for step in steps)
    assert all(isinstance(step.get("run", ""), str) for step in steps)
    assert gitlab["compare"]["artifacts"]["reports"]["junit"] == "diff.xml"
    seen = [*commands(github), *commands(gitlab)]
    assert len(seen) == 4
    for command in seen:
        _, name, *arguments = shlex.split(command)
        assert penult(name, "--help") == 0
        options = capsys.readouterr().out
        for argument in arguments:
            if argument.startswith("--"):
                assert re.search(rf"{argument}\b", options), f"{command}: no option {argument}"

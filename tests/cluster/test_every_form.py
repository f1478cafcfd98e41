"""Every form of data is read by the workers as by one process."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from cluster_work import contents
from command import penult

FORMS = importlib.import_module("data.test_forms")  # the same samples in every form


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    ["folder", "zip", "tar.gz", "csv", "jsonl", "bytes", "parts", "shards", "hf", "hf:", "stream"],
)
def test_workers_read_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_workers: str, form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(FORMS.NETWORK)
    specs = {"stream": "nets.py:stream"}
    if form != "stream":
        specs = FORMS.saved(tmp_path, FORMS.made(tmp_path / "photos"))
    command = ["analyze", "nets.py:network", str(specs[form]), "--weights", "random", "--no-fit"]
    command += ["--limit", "25"]
    assert penult(*command, "--out", "one") == 0
    assert penult(*command, "--out", "two", "--cluster", two_workers) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")

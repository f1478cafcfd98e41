"""A run made by the workers of a cluster has the bytes of one that one process made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from command import penult

NETWORK = ("models.py:net", "--weights", "random", "--no-fit", "--batch-size", "1100")


def contents(folder: Path) -> dict[str, Any]:
    """All files of a run; of JSON what it says, but for times."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def analyze(out: str, *more: str, data: str = "data.py:images") -> int:
    return penult("analyze", NETWORK[0], data, *NETWORK[1:], "--out", out, *more)


@pytest.mark.parametrize(
    ("data", "more"),
    [
        ("data.py:images", ("--eval", "data.py:images", "--store", "float16")),
        pytest.param(
            *("photos", ("--also", "photos", "--labels", "predicted")), marks=pytest.mark.slow
        ),
    ],
)
def test_workers_make_the_same_bytes_as_one_process(
    work: Path, two_workers: str, data: str, more: tuple[str, ...]
) -> None:
    assert analyze("one", *more, data=data) == 0
    assert analyze("two", *more, "--cluster", two_workers, data=data) == 0
    assert contents(work / "one") == contents(work / "two")
    faults = json.loads((work / "two" / "summary.json").read_text())["faults"]["train"]
    assert faults["n_faults"] == (1 if data == "photos" else 0)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_more_than_its_shards(
    work: Path, two_workers: str
) -> None:
    assert analyze("one") == 0
    (work / "die.order").touch()
    assert analyze("two", "--cluster", two_workers) == 0
    assert not (work / "die.order").exists(), "a worker has killed itself"
    assert contents(work / "one") == contents(work / "two")


@pytest.mark.slow
def test_a_run_that_was_cut_short_goes_on_with_the_shards_that_are_there(
    work: Path, two_workers: str
) -> None:
    assert analyze("run") == 0
    whole = contents(work / "run")
    train = work / "run" / "features" / "train"
    kept = train / "shard-00002.safetensors"
    when = kept.stat().st_mtime_ns
    for shard in (0, 3, 4):
        (train / f"shard-{shard:05d}.safetensors").unlink()
    (train / ".shard-00003.safetensors.0123456789ab.tmp").touch()  # of a killed worker
    for file in (train / "index.json", work / "run" / "run.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "complete": False}))
    assert analyze("run", "--cluster", two_workers) == 0
    assert contents(work / "run") == whole
    assert kept.stat().st_mtime_ns == when

"""A run made by the workers of a cluster has the bytes of one that one process made."""

from __future__ import annotations

import json
import socket
import zipfile
from pathlib import Path

import pytest

from cluster_work import analyze, contents

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("data", "more"),
    [
        ("data.py:images", ("--eval", "data.py:images", "--store", "float16")),
        ("photos", ("--also", "photos", "--labels", "predicted")),
        ("photos", ("--views", "2", "--labels", "predicted")),
    ],
)
def test_workers_make_the_same_bytes_as_one_process(
    work: Path, two_workers: str, data: str, more: tuple[str, ...]
) -> None:
    assert analyze("one", *more, data=data) == 0
    assert analyze("two", *more, "--cluster", two_workers, data=data) == 0
    assert contents(work / "one") == contents(work / "two")
    assert (work / "two" / "features" / "view-02").is_dir() == ("--views" in more)
    faults = json.loads((work / "two" / "summary.json").read_text())["faults"]["train"]
    assert faults["n_faults"] == (1 if data == "photos" else 0)
    # As where the command was ended after the pass: the features are complete, and the run is not.
    run = work / "two" / "run.json"
    run.write_text(json.dumps({**json.loads(run.read_text()), "complete": False}))
    assert analyze("two", *more, "--cluster", two_workers, data=data) == 0
    assert contents(work / "one") == contents(work / "two")


def test_a_worker_that_is_killed_costs_no_more_than_its_shards(
    work: Path, two_workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze("one") == 0
    (work / "die.order").touch()
    capsys.readouterr()
    assert analyze("two", "--cluster", two_workers) == 0
    assert not (work / "die.order").exists(), "a worker has killed itself"
    printed = capsys.readouterr()
    assert printed.err.count("died: another takes over what it was at") == 1
    assert "raylet" not in printed.out + printed.err
    assert contents(work / "one") == contents(work / "two")


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


def test_a_worker_without_the_data_is_named(
    work: Path,
    two_workers: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ONLY_HERE", "1")
    assert analyze("run", "--cluster", two_workers, data="data.py:only_here") == 2
    said = capsys.readouterr().err
    assert f"error: a worker on {socket.gethostname()}: data.py:only_here failed" in said
    assert "KeyError: 'ONLY_HERE'" in said


def test_an_archive_that_changes_meanwhile_is_refused(
    work: Path, two_workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(work / "photos.zip", "w") as archive:
        for path in sorted((work / "photos").rglob("0[0-4].png")):
            for i in range(30):
                archive.write(path, f"{path.parent.name}/{i:03}.png")
    (work / "touch.order").touch()
    assert analyze("run", "--cluster", two_workers, data="photos.zip") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "photos.zip changed while it was read: let no other program write it" in said


def test_a_disk_that_is_full_is_said_once_and_the_run_goes_on(
    work: Path, two_workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze("one") == 0
    (work / "full.order").touch()
    assert analyze("two", "--cluster", two_workers) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("the disk is full: ") == 1
    assert f"a worker on {socket.gethostname()}: the disk is full: {work}/two/features" in said
    assert analyze("two") == 0
    assert contents(work / "one") == contents(work / "two")


def test_each_gpu_has_one_worker_that_keeps_it(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray believes in GPUs that are declared to it; the workers find none, and use the CPU."""
    assert analyze("one") == 0
    (work / "gpus").mkdir()
    (work / "slowly").touch()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert analyze("two", "--cluster") == 0
    assert contents(work / "one") == contents(work / "two")
    seen = [path.name.split() for path in (work / "gpus").iterdir()]
    assert sorted(gpu for _, gpu in seen) == ["0", "1"], "two workers, each with a GPU of its own"

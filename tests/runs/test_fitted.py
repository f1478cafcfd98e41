"""Heads that are added to a finished run, and a run's path that goes on or is cut short."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from command import penult
from penult.errors import InputError
from penult.explain.choice import choose_head
from penult.features.features import Features
from penult.features.saving import save_features
from penult.heads.comparison import USUAL, PairedCounts, paired_counts
from penult.heads.fitting import fit_heads
from penult.heads.judge import EVALUATION, Judge, size_within
from penult.heads.plan import SIZES
from penult.runs.analyze import Options, analyze_features
from penult.runs.fitted import add_heads, fitted_sizes, left_out
from penult.runs.run import Run

N_CLASSES, N_FEATURES = 6, 48


def sample(n: int, seed: int, separation: float = 0.6) -> Features:
    """Classes that need many features to be told apart: each is a little higher in half of them."""
    means = torch.rand(N_CLASSES, N_FEATURES, generator=torch.Generator().manual_seed(7)).round()
    labels = torch.arange(n) % N_CLASSES
    noise = torch.randn(n, N_FEATURES, generator=torch.Generator().manual_seed(seed))
    z = (separation * means[labels] + 0.5 * noise).clamp(min=0)
    weight = means - means.mean(0)
    names = [f"c{c}" for c in range(N_CLASSES)]
    return Features.of(z, labels, 4 * weight, -2 * separation * weight.sum(1), names)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose usual path is good enough, so that it has just that."""
    folder = tmp_path_factory.mktemp("made") / "run"
    run = analyze_features(sample(400, 0, 1.5), sample(1200, 1, 1.5), folder)
    assert fitted_sizes(run) == [1, 2, 3, 5, 8, 10, 15, 20]
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """A copy of it."""
    return Run.open(shutil.copytree(made, tmp_path / "run"))


def entangled(n: int, seed: int) -> Features:
    """Classes of which the dense head needs all features: any that is left out costs accuracy."""
    weight = torch.randn(N_CLASSES, N_FEATURES, generator=torch.Generator().manual_seed(7))
    z = torch.randn(n, N_FEATURES, generator=torch.Generator().manual_seed(seed))
    return Features.of(z, (z @ weight.T).argmax(1), weight)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def test_heads_are_added_and_found_by_all_that_reads_a_run(run: Run) -> None:
    before = {row["k"]: row for row in run.summary()["path"]}
    assert add_heads(run, [32, 4]) == []
    rows = {row["k"]: row for row in run.summary()["path"]}
    assert list(rows) == [1, 2, 3, 4, 5, 8, 10, 15, 20, 32]
    assert {k: row for k, row in rows.items() if k in before} == before
    assert all(row.keys() == before[5].keys() for row in rows.values())
    fresh = Run.open(run.folder)
    for k in (4, 32):
        head = fresh.head("curvature", k)
        assert head.subspaces.indptr.diff().tolist() == [k] * N_CLASSES
        dense = fresh.train().require_head()
        counts = paired_counts(dense, [head], fresh.evaluation(), divergence=True)[0]
        assert PairedCounts(**rows[k]["counts"]) == counts
        assert (rows[k]["accuracy"], rows[k]["kl"]) == (counts.after, counts.kl)
        assert choose_head(fresh, k).counts == counts
    # Far apart, so that it holds on every processor.
    assert rows[1]["kl"] > rows[4]["kl"] > rows[32]["kl"]


def test_a_head_does_not_depend_on_what_else_is_added_or_when(run: Run, tmp_path: Path) -> None:
    other = Run.open(shutil.copytree(run.folder, tmp_path / "other"))
    add_heads(run, [32, 4])
    for k in (32, 4):
        add_heads(other, [k])
    assert contents(run.folder) == contents(other.folder)
    add_heads(other, [4, 5, 32])
    assert contents(run.folder) == contents(other.folder)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ("0", "k must lie in [1, 48] (n_features), found 0"),
        ("49", "found 49"),
        ("x", "-k: expected numbers or ranges like 1,2,5-8, found 'x'"),
    ],
)
def test_sizes_that_no_head_can_have(
    run: Run, sizes: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run.folder)
    assert penult("fit", str(run.folder), "-k", sizes) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert message in said[0]
    assert contents(run.folder) == before


@pytest.mark.parametrize(
    "options",
    [["--out", "x"], ["--eval", "x"], ["--also", "x"], ["--select", "moments"], ["--seed", "1"]],
)
def test_a_run_says_itself_how_its_heads_are_fitted(
    run: Run, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert penult("fit", str(run.folder), "-k", "32", *options) == 2
    assert f"{options[0]} does not go with {run.folder}, which is a run" in capsys.readouterr().err


def test_the_command_adds_heads_and_the_others_show_them(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(run.folder)
    assert penult("fit", folder, "-k", "32,4") == 0
    page = capsys.readouterr().out
    assert "Added: k = 4, 32" in page
    assert penult("fit", folder, "-k", "32", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["added"] == []
    assert [row["k"] for row in document["path"]] == [1, 2, 3, 4, 5, 8, 10, 15, 20, 32]
    assert penult("show", folder, "-k", "32", "--score", "curvature") == 0
    assert "curvature, k = 32" in capsys.readouterr().out
    assert penult("measure", folder, "--json") == 0
    measured = json.loads(capsys.readouterr().out)["dimension"]["decision"]["k"]["steps"]
    assert [step["n"] for step in measured] == [1, 2, 3, 4, 5, 8, 10, 15, 20, 32]
    assert penult("report", folder, "-k", "32", "--no-maps") == 0
    assert "k = 32" in run.report_file.read_text()
    capsys.readouterr()
    assert penult("fit", folder, "-k", "7", "--time-limit", "1e") == 2
    assert "--time-limit: expected a time above 0 like 90s" in capsys.readouterr().err
    assert penult("fit", folder, "-k", "7", "--time-limit", "0.001s") == 0
    said = capsys.readouterr()
    assert "the time limit of 1 s passed before k = 7 was done" in said.err
    assert "Nothing to add" in said.out


def test_a_path_goes_on_until_a_head_is_good_enough(tmp_path: Path) -> None:
    said: list[str] = []
    train, held_out = entangled(400, 0), entangled(1500, 1)
    run = analyze_features(train, held_out, tmp_path / "run", say=said.append)
    sizes = fitted_sizes(run)
    assert sizes == [1, 2, 3, 5, 8, 10, 15, 20, 32, 48]
    assert said[0] == "no head is good enough yet: going on with k = 32, about 1 s"
    assert len(said) == 2
    before = contents(run.folder)
    analyze_features(train, held_out, tmp_path / "run", say=said.append)
    assert contents(run.folder) == before
    unfitted = analyze_features(train, held_out, tmp_path / "none", Options(fit=False))
    assert fitted_sizes(unfitted) == []
    assert left_out(unfitted) is None
    add_heads(unfitted, [32])
    assert fitted_sizes(unfitted) == [32]


def test_a_time_limit_or_an_interrupt_leaves_a_run_that_the_same_command_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_features("train.safetensors", sample(400, 0, 1.5))
    save_features("eval.safetensors", sample(1200, 1, 1.5))
    analyze = ["analyze", "train.safetensors", "--eval", "eval.safetensors", "--out"]
    assert penult(*analyze, "whole") == 0
    whole = contents(Path("whole"))
    assert penult(*analyze, "run", "--time-limit", "0.001") == 0
    said = capsys.readouterr().err
    assert "the heads of k = 1, 2, 3, 5, 8, 10, 15, 20 were not fitted, since the time was" in said
    assert fitted_sizes(Run.open("run")) == []
    assert penult("report", "run", "--no-maps") == 0
    Path("run/report.html").unlink()

    shutil.rmtree("run/examples", ignore_errors=True)
    with monkeypatch.context() as patch:
        n_saved: list[int] = []

        def stop(features: Any, also: Any, plan: Any, pace: Any, reader: Any) -> Any:
            for step in fit_heads(features, also, plan, pace, reader):
                if len(n_saved) == 3:
                    raise KeyboardInterrupt
                n_saved.append(step.k)
                yield step

        patch.setattr("penult.heads.path.fit_heads", stop)
        capsys.readouterr()
        assert penult(*analyze, "run") == 130
    shown = capsys.readouterr()
    assert fitted_sizes(Run.open("run")) == [10, 15, 20]
    assert "Run folder: run" in shown.out
    assert "the heads of k = 1, 2, 3, 5, 8 were not fitted" in shown.err
    assert "penult: interrupted: repeat the command" in shown.err
    assert penult(*analyze, "run") == 0
    assert contents(Path("run")) == whole


def test_cut_off_between_a_head_and_its_row(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Run.open(shutil.copytree(run.folder, tmp_path / "whole"))
    add_heads(whole, [32])

    def die(self: Run, summary: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "amend", die)
        with pytest.raises(KeyboardInterrupt):
            add_heads(run, [32])
    assert fitted_sizes(Run.open(run.folder)) == fitted_sizes(run) == [1, 2, 3, 5, 8, 10, 15, 20]
    add_heads(run, [32])
    assert contents(run.folder) == contents(whole.folder)


@pytest.mark.slow
def test_killed_at_any_moment_a_run_gets_the_same_heads(run: Run, tmp_path: Path) -> None:
    whole = Run.open(shutil.copytree(run.folder, tmp_path / "whole"))
    add_heads(whole, [4, 32])
    code = (
        "import sys; from penult.runs.fitted import add_heads; "
        "print('ready', flush=True); add_heads(sys.argv[1], [4, 32])"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for wait in (0.05, 0.3, 0.9):
        job = subprocess.Popen(
            [sys.executable, "-c", code, str(run.folder)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert job.stdout is not None
        job.stdout.readline()
        time.sleep(wait)
        job.send_signal(signal.SIGKILL)
        job.wait()
        job.stdout.close()
        Run.open(run.folder)
    add_heads(Run.open(run.folder), [4, 32])
    assert contents(run.folder) == contents(whole.folder)


def test_without_samples_that_judge_no_path_goes_on(tmp_path: Path) -> None:
    few = sample(3, 0).subset(torch.tensor([True, True, True]))
    assert few.n_samples == 3
    run = analyze_features(few, None, tmp_path / "run")
    assert run.summary()["judge"]["kind"] == "fitted"
    assert fitted_sizes(run)[-1] == 20


def test_a_run_of_something_else_in_between_is_noticed(run: Run) -> None:
    run.about["identity"] = {**run.about["identity"], "data": "other"}
    with pytest.raises(InputError, match="was made anew while this command ran"):
        add_heads(run, [32])


def test_sizes_that_are_tried_after_a_look_are_bounded_more_strictly() -> None:
    """Going on until a head passes is a choice: 95 % are to hold of what it ends with."""
    assert max(SIZES) == USUAL
    generator = torch.Generator().manual_seed(0)
    n, tolerance, sizes = 2000, 0.005, [20, 32, 64, 128, 256]
    losses = torch.tensor([0.012, 0.009, 0.007, 0.0051, 0.003])
    judge, wrong = Judge(EVALUATION, n), 0
    n_times = 2000
    differing = 0.05 + losses
    lost = torch.binomial(
        torch.full((n_times, 5), float(n)), ((differing + losses) / 2).expand(n_times, 5), generator
    )
    won = torch.binomial(
        torch.full((n_times, 5), float(n)), ((differing - losses) / 2).expand(n_times, 5), generator
    )
    for pair in torch.stack([lost, won], 2).long().tolist():
        counts = [PairedCounts(n, n, int(a), int(b), 0) for a, b in pair]
        for reached in range(1, len(sizes) + 1):
            found = size_within(sizes[:reached], counts[:reached], judge, tolerance)
            if found.index is not None:
                wrong += bool(losses[found.index] > tolerance)
                break
    assert wrong / n_times < 0.06

"""Many runs: what a seed does is told from what a change does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind
from torch import Tensor

from command import penult
from penult.diff.many import compare_many, spread
from penult.diff.side import Side
from penult.errors import InputError
from penult.features.features import Features
from penult.runs.analyze import Options, analyze_features

N, D, C = 800, 12, 4
NAMES = ("cat", "dog", "fox", "owl")


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % C
    weight = torch.randn(C, D, generator=generator)
    return 0.6 * weight[labels] + torch.randn(N, D, generator=generator), labels, weight


def trained(folder: Path, seed: int, broken: int | None = None, first: int = 0) -> Side:
    """A run whose head a seed has moved a little; of a broken class it takes hardly notice."""
    z, labels, weight = drawn()
    weight = weight + 0.15 * torch.randn(C, D, generator=torch.Generator().manual_seed(seed))
    if broken is not None:
        weight[broken] *= 0.2
    ids = [f"{i:04d}" for i in range(first, N)]
    features = Features.of(z[first:], labels[first:], weight, class_names=NAMES, ids=ids)
    analyze_features(features, features, folder, Options(fit=False))
    return Side.read(str(folder))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Side]:
    folder = tmp_path_factory.mktemp("seeds")
    return [trained(folder / f"seed{i}", i) for i in range(3)]


def right(side: Side) -> Tensor:
    z, labels = side.features.arrays()
    return (z @ side.head.weight.T).argmax(1) == labels


def test_one_network_is_no_two_seeds(seeds: list[Side], tmp_path: Path) -> None:
    shutil.copytree(seeds[0].run.folder, tmp_path / "copy")
    copy = Side.read(str(tmp_path / "copy"))
    for twice in ([seeds[0], seeds[1], copy], [seeds[0], Side.read(f"{seeds[0].name}@k5")]):
        with pytest.raises(InputError, match="are of the same network and data"):
            compare_many(twice)
    with pytest.raises(InputError, match="are of the same network and data"):
        compare_many(seeds, [seeds[0], copy])
    # What is compared with the seeds may be made of them: sparse heads with their networks.
    assert compare_many(seeds[:2], [Side.read(f"{side.name}@k5") for side in seeds[:2]])


def test_a_change_is_told_from_seeds(seeds: list[Side], tmp_path: Path) -> None:
    changed = [trained(tmp_path / f"new{i}", 10 + i, broken=2) for i in range(2)]
    found = compare_many(seeds, changed)
    assert found["classes"][0]["class"] == "fox"
    assert found["classes"][0]["sure"]
    assert "Beyond seeds changed: fox" in found["verdict"]
    table = torch.stack([right(side) for side in (*seeds, *changed)])
    labels = seeds[0].features.labels()
    row = found["classes"][0]
    accuracies = table[:, labels == 2].double().mean(1)
    assert row["values"] == pytest.approx(accuracies[:3].tolist())
    assert row["change"] == pytest.approx(float(accuracies[3:].mean() - accuracies[:3].mean()))
    always = table[:3].all(0)
    assert found["samples"]["always_right"] == int(always.sum())
    assert found["samples"]["by_seed"] == int((~always & table[:3].any(0)).sum())
    broken = (always & ~table[3:].any(0)).nonzero()[:, 0].tolist()
    assert found["samples"]["broken"]["n_samples"] == len(broken)
    assert found["samples"]["broken"]["ids"] == [f"{i:04d}" for i in broken[:50]]
    evidence = {row["class"]: row for row in found["evidence"]}
    assert all(row["by_change"] is not None for row in evidence.values())


def test_another_seed_is_no_change(seeds: list[Side], tmp_path: Path) -> None:
    found = compare_many(seeds, [trained(tmp_path / "new", 20)])
    assert not any(row["sure"] for row in found["classes"])
    assert "no more than seeds may differ" in found["verdict"]


def test_seeds_alone_are_told_by_their_spread(seeds: list[Side]) -> None:
    found = compare_many(seeds)
    accuracies = [float(right(side).double().mean()) for side in seeds]
    assert found["overall"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert "By the change" not in found["verdict"]
    differ = [
        (right(seeds[i]) != right(seeds[j])).double().mean() for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert found["flips"]["by_seed"] == pytest.approx(float(np.mean(differ)))


def test_only_samples_that_all_have_count(seeds: list[Side], tmp_path: Path) -> None:
    found = compare_many(seeds[:2], [trained(tmp_path / "fewer", 5, first=100)])
    assert found["n_samples"] == N - 100
    assert found["overall"]["values"][0] == pytest.approx(
        float(right(seeds[0])[100:].double().mean())
    )


def test_the_interval_is_that_of_the_t_test() -> None:
    draw = np.random.default_rng(0)
    for a, b in ((2, 1), (3, 2), (6, 4)):
        first, second = draw.normal(0.9, 0.01, a), draw.normal(0.88, 0.01, b)
        found = spread(torch.tensor(first), torch.tensor(second), 10**6)
        expected = ttest_ind(second, first) if b > 1 else None
        if expected is not None:
            assert found["p"] == pytest.approx(expected.pvalue)
            ends = expected.confidence_interval(0.95)
            assert found["interval"] == pytest.approx([ends.low, ends.high])
        assert found["interval"][0] < found["change"] < found["interval"][1]


def test_seeds_are_taken_for_a_change_as_rarely_as_it_says() -> None:
    """Small classes on which seeds agree by chance are no proof of a change."""
    draw = np.random.default_rng(1)
    wrong, tries = 0, 2000
    for _ in range(tries):
        values = draw.binomial(20, 0.95, 4) / 20
        usual = 0.95 * 0.05 / 20
        found = spread(torch.tensor(values[:3]), torch.tensor(values[3:]), 20, usual)
        wrong += found["sure"]
    assert wrong <= 0.05 * tries + 3 * (tries * 0.05 * 0.95) ** 0.5
    alike = torch.full((3,), 0.95, dtype=torch.float64)
    assert not spread(alike, torch.tensor([0.9], dtype=torch.float64), 20)["sure"]


def test_the_command(seeds: list[Side], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [side.name for side in seeds]
    new = trained(tmp_path / "new", 30, broken=1)
    capsys.readouterr()
    assert penult("diff", "--many", *names, "--changed", new.name) == 0
    page = " ".join(capsys.readouterr().out.replace("\xa0", " ").split())
    assert "By seed alone: 3 runs are right on" in page
    assert "changed beyond what seeds do, with 95 % confidence" in page
    assert penult("diff", "--many", *names, "--json") == 0
    assert json.loads(capsys.readouterr().out)["format"] == "penult-diff-many/1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("A",), "expected two runs, OLD and NEW, found 1"),
        (("A", "B", "C"), "found 3; --many compares more than two"),
        (("--many", "A"), "expected at least two runs that differ by their seed"),
        (("--many", "A", "B", "A"), "is given twice: expected another run of each seed"),
        (("--many", "A", "B", "--fail-if", "accuracy < -1"), "--many tells seeds from a change"),
        (
            ("--many", "A", "B", "--no-maps"),
            "--no-maps is about pictures, which --many does not take",
        ),
        (("A", "B", "--changed", "C"), "--changed is about many runs: give it with --many"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    seeds: list[Side],
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    runs = dict(zip("ABC", (side.name for side in seeds), strict=True))
    assert penult("diff", *(runs.get(one, one) for one in arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_runs_without_shared_samples(seeds: list[Side], tmp_path: Path) -> None:
    other = trained(tmp_path / "late", 5, first=700)
    found = compare_many([seeds[0], other])
    assert found["n_samples"] == 100
    z, labels, weight = drawn()
    features = Features.of(z, labels, weight, class_names=NAMES, ids=[f"x{i}" for i in range(N)])
    analyze_features(features, features, tmp_path / "x", Options(fit=False))
    with pytest.raises(InputError, match="share no sample"):
        compare_many([seeds[0], Side.read(str(tmp_path / "x"))])

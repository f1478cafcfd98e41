from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from penult.cli.app import main
from penult.cli.values import sizes_of
from penult.errors import InputError
from penult.features.features import Features, save_features
from penult.heads.cross_fit import affordable_folds
from penult.heads.path import SELECTIONS, Plan, fit_path
from penult.heads.select import coupled as alternating
from penult.heads.select import joint
from penult.heads.sparse_head import SparseHead

N_CLASSES, N_FEATURES, PER_CLASS = 6, 30, 3


def planted(n: int = 1500, seed: int = 0) -> tuple[Features, list[list[int]]]:
    """Features of which each class reads exactly three; the labels are the dense head's."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(N_CLASSES, N_FEATURES)
    support = []
    for c in range(N_CLASSES):
        kept = torch.randperm(N_FEATURES, generator=torch.Generator().manual_seed(c))[:PER_CLASS]
        weight[c, kept] = 2.0
        support.append(sorted(kept.tolist()))
    z = torch.randn(n, N_FEATURES, generator=generator)
    return Features.of(z, (z @ weight.T).argmax(1), weight), support


@pytest.mark.parametrize("select", ["curvature", "moments"])
def test_the_planted_features_are_found(select: str) -> None:
    features, support = planted()
    held_out, _ = planted(500, seed=1)
    path = fit_path(features, held_out, Plan((1, PER_CLASS), select))
    assert [sorted(kept.tolist()) for kept in path[PER_CLASS].subspaces] == support
    accuracies = [step.accuracy for step in path.steps]
    assert accuracies[1] == pytest.approx(1.0, abs=0.01)
    assert accuracies[0] is not None
    assert accuracies[0] < 0.9


def test_every_selection_and_refit_gives_heads_of_the_asked_sizes() -> None:
    features, _ = planted(300)
    for select in SELECTIONS:
        for refit in ("none", "least-squares", "softmax"):
            path = fit_path(features, None, Plan((2, 4), select, refit))
            for step in path.steps:
                assert step.head.subspaces.indptr.diff().tolist() == [step.k] * N_CLASSES
                assert step.head.values.isfinite().all(), (select, refit)


def test_a_refit_is_nearer_to_the_dense_head_than_its_own_weights() -> None:
    features, _ = planted()
    z, _ = features.arrays()
    head = features.require_head()
    dense = head(z).softmax(1)

    def divergence(sparse: SparseHead) -> float:
        with torch.no_grad():
            log = sparse(z).log_softmax(1)
        return float((dense * (dense.clamp(min=1e-30).log() - log)).sum(1).mean())

    kept = {r: fit_path(features, None, Plan((2,), "magnitude", r))[2] for r in ("none", "softmax")}
    assert divergence(kept["softmax"]) < divergence(kept["none"])


WAYS = pytest.mark.parametrize("way", ["moments", "curvature", "many"])


def limit(way: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The selection to ask for; "many" is curvature where there are too many classes."""
    if way == "many":
        monkeypatch.setattr(alternating, "MOST_LOGITS", 0)
        monkeypatch.setattr(joint, "JOINT_FEATURES", 0)
    return "moments" if way == "moments" else "curvature"


@WAYS
def test_features_in_all_are_bounded(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    select = limit(way, monkeypatch)
    features, _ = planted(600)
    for bound in (4, 7):
        path = fit_path(features, None, Plan((1, 3), select, max_features=bound))
        for step in path.steps:
            assert step.n_features_used <= bound
            assert step.head.indptr.diff().tolist() == [step.k] * N_CLASSES
    free = fit_path(features, None, Plan((3,), select))
    bounded = fit_path(
        features, None, Plan((3,), select, max_features=free.steps[0].n_features_used)
    )
    assert bounded.steps[0].accuracy == pytest.approx(free.steps[0].accuracy, abs=0.03)
    with pytest.raises(InputError, match=r"different features must lie in \[3, 30\]"):
        fit_path(features, None, Plan((1, 3), select, max_features=2))


@WAYS
def test_a_mean_budget_goes_where_it_is_needed(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes 0 and 1 read five features each, the others one: a mean fits what a k does not."""
    select = limit(way, monkeypatch)
    z = torch.rand(3000, 20, generator=torch.Generator().manual_seed(0))
    weight = torch.zeros(6, 20)
    weight[0, :5], weight[1, 5:10] = 5.0, 5.0
    for c in range(2, 6):
        weight[c, 8 + c] = 11.0
    labels = (z @ weight.T).argmax(1)
    features = Features.of(z, labels, weight, torch.zeros(6))
    path = fit_path(features, None, Plan((3,), select, budget="mean"))
    sizes = path[3].indptr.diff().tolist()
    assert sum(sizes) == 18
    assert min(sizes[:2]) > max(sizes[2:])
    even = fit_path(features, None, Plan((3,), select))
    assert (path.steps[0].accuracy or 0) > (even.steps[0].accuracy or 0) + 0.03


def test_budgets_that_nobody_can_fit_are_refused() -> None:
    with pytest.raises(InputError, match="need the selection curvature or moments, found wanda"):
        Plan((1, 3), "wanda", max_features=7)
    with pytest.raises(InputError, match="do not go together"):
        Plan((1, 3), max_features=7, budget="mean")
    with pytest.raises(InputError, match="budget must be one of each, mean, found some"):
        Plan((1, 3), budget="some")


def test_the_same_seed_gives_the_same_bits() -> None:
    features, _ = planted()
    first, second = (fit_path(features, None, Plan((1, 3, 5))) for _ in range(2))
    for a, b in zip(first.steps, second.steps, strict=True):
        assert torch.equal(a.head.indices, b.head.indices)
        assert torch.equal(a.head.values, b.head.values)
        assert torch.equal(a.head.bias, b.head.bias)


def test_pick_takes_the_smallest_head_within_the_tolerance() -> None:
    features, _ = planted(3000)
    path = fit_path(features, planted(600, seed=1)[0], Plan((1, 2, PER_CLASS, 10)))
    pick = path.pick(0.02)
    assert (pick.k, pick.vouched) == (PER_CLASS, True)
    assert pick.head is path[PER_CLASS]
    assert pick.counts is not None
    assert pick.counts.at_most <= 0.02
    assert pick.document()["n_samples"] == 600
    assert "on 600 evaluation samples" in pick.why


def test_nothing_is_promised_without_evaluation_samples() -> None:
    features, _ = planted(3000)
    plan = Plan((1, 2, PER_CLASS, 10))
    crossed = fit_path(features, None, plan, n_folds=2).pick(0.02)
    assert (crossed.k, crossed.vouched) == (PER_CLASS, False)
    assert "Nothing is promised" in crossed.why
    fitted = fit_path(features, None, plan).pick(0.02)
    assert (fitted.k, fitted.head, fitted.vouched) == (None, None, False)
    assert "No size can be chosen" in fitted.why


def test_a_tolerance_that_no_head_reaches_leaves_the_path() -> None:
    features, _ = planted(600)
    path = fit_path(features, planted(400, seed=1)[0], Plan((1, 2)))
    pick = path.pick(0.001)
    assert (pick.k, pick.counts) == (None, None)
    assert pick.why.startswith("No head can be shown to lose less than 0.10 points: the largest, k")
    with pytest.raises(InputError, match=r"the tolerance must lie in \(0, 1\), found 0"):
        path.pick(0)


@pytest.mark.parametrize("n_folds", [2, 5])
def test_a_cross_fit_takes_the_advantage_from_heads_that_know_their_judges(n_folds: int) -> None:
    """Labels are tossed coins: no head can know those of samples that it has not seen."""
    generator = torch.Generator().manual_seed(n_folds)
    z = torch.randn(400, 40, generator=generator)
    labels = torch.randint(2, (400,), generator=generator)
    features = Features.of(z, labels, torch.randn(2, 40, generator=generator))
    plan = Plan((20,), "moments", labels=True)
    known = fit_path(features, None, plan)
    crossed = fit_path(features, None, plan, n_folds=n_folds)
    assert known.steps[0].accuracy is not None
    assert crossed.steps[0].accuracy is not None
    assert known.steps[0].accuracy > 0.58
    assert crossed.steps[0].accuracy < 0.56
    assert crossed.steps[0].counts is not None
    assert crossed.steps[0].counts.n_samples == 400
    assert torch.equal(known[20].values, crossed[20].values), "the head itself sees all samples"
    assert crossed.dense_accuracy == known.dense_accuracy


def test_folds_are_fewer_where_a_fit_takes_long() -> None:
    assert affordable_folds(50_000, 64, 10) == 5
    assert affordable_folds(50_000, 256, 100) == 2
    assert affordable_folds(1_281_167, 2048, 1000) == 0
    assert affordable_folds(9, 4, 3) == 0, "each fold needs samples"


def test_what_is_not_there_is_refused() -> None:
    features, _ = planted(300)
    with pytest.raises(InputError, match="no selection is called 'x'; there are curvature, mom"):
        Plan(select="x")
    with pytest.raises(InputError, match="no refit is called 'x'; there are softmax"):
        Plan(refit="x")
    with pytest.raises(InputError, match="labels are fitted by the softmax refit only"):
        Plan(refit="none", labels=True)
    with pytest.raises(InputError, match=r"k must lie in \[1, 30\] \(n_features\), found 31"):
        fit_path(features, None, Plan((31,)))
    path = fit_path(features, None, Plan((1, 2)))
    with pytest.raises(InputError, match="the path has no k = 3; it has 1, 2"):
        path[3]
    other = Features.of(torch.rand(5, 4), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(InputError, match="n_features is 30 in the features and 4 in those for"):
        fit_path(features, other)


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["penult", "fit", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command_writes_heads_and_prints_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_features("train.safetensors", planted()[0])
    save_features("eval.safetensors", planted(500, seed=1)[0])
    arguments = ["train.safetensors", "--eval", "eval.safetensors", "--out", "heads"]
    assert run([*arguments, "-k", "1,3-4", "--tolerance", "0.05", "--json"], monkeypatch) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [step["k"] for step in document["path"]] == [1, 3, 4]
    assert document["dense"]["accuracy"] == 1.0
    assert document["pick"]["k"] == 3
    z, labels = Features.open("eval.safetensors").arrays()
    for step in document["path"]:
        head = SparseHead.load(f"heads/heads/k{step['k']:03d}.safetensors")
        accuracy = (head(z).argmax(1) == labels).double().mean()
        assert step["accuracy"] == pytest.approx(float(accuracy))
        assert step["nnz"] == len(head.indices) == step["k"] * N_CLASSES
        assert step["n_features_used"] == len(set(head.indices.tolist()))
        assert (step["select"], step["refit"]) == ("curvature", "softmax")
        assert step["seconds"] > 0
    assert run([*arguments, "-k", "1,3", "--tolerance", "0.05"], monkeypatch) == 0
    assert "picked: k = 3 is the smallest head that can be shown" in capsys.readouterr().out
    assert run([*arguments, "-k", "1", "--tolerance", "0.001"], monkeypatch) == 0
    page = capsys.readouterr()
    assert "500 samples cannot show that no more than 0.10 points are lost" in page.err
    assert "No head can be shown to lose less than 0.10 points" in page.err
    assert "dense head: 100.00 %; measured on 500 evaluation samples" in page.out
    alone = ["train.safetensors", "--out", "heads", "-k", "1,3", "--tolerance", "0.05"]
    assert run(alone, monkeypatch) == 0
    assert "accuracies are cross-fitted in 5 folds" in capsys.readouterr().err
    for bad, message in (
        (["-k", "x"], "-k: expected numbers or ranges like 1,2,5-8, found 'x'"),
        (["-k", "0"], "k must lie in [1, 30] (n_features), found 0"),
        (["-k", "31"], "found 31"),
        (["--select", "x"], "no selection is called 'x'"),
        (["-k", "1", "--tolerance", "2"], "the tolerance must lie in (0, 1), found 2"),
    ):
        assert run([*arguments, *bad], monkeypatch) == 2
        assert message in capsys.readouterr().err


def test_heads_of_an_earlier_fit_do_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, _ = planted(300)
    fit_path(features, None, Plan((1, 2, 4), "moments")).save(tmp_path)
    path = fit_path(features, None, Plan((2, 3), "moments"))
    path.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["heads", "path.json"]
    names = ["k002.safetensors", "k003.safetensors"]
    assert sorted(file.name for file in (tmp_path / "heads").iterdir()) == names

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(SparseHead, "save", full)
    with pytest.raises(OSError, match="disk full"):
        fit_path(features, None, Plan((5,), "moments")).save(tmp_path)
    assert sorted(file.name for file in (tmp_path / "heads").iterdir()) == names
    assert json.loads((tmp_path / "path.json").read_text())["path"][0]["k"] == 2


def test_a_class_of_zeros_one_class_and_a_class_without_samples() -> None:
    features, _ = planted(600)
    z, labels = features.arrays()
    head = features.require_head()
    z[labels == 2] = 0
    zeros = Features.of(z, labels, head.weight, head.bias)
    empty = Features.of(z, labels.clamp(max=N_CLASSES - 2), head.weight, head.bias)
    alone = Features.of(z, torch.zeros_like(labels), head.weight[:1], head.bias[:1])
    for samples in (zeros, empty, alone):
        for plan in (Plan((1, 3)), Plan((2,), budget="mean"), Plan((2,), max_features=5)):
            for step in fit_path(samples, None, plan).steps:
                assert step.head.values.isfinite().all()
                assert step.head.bias.isfinite().all()


def test_a_fit_replaces_nothing_but_a_fit(tmp_path: Path) -> None:
    features, _ = planted(300)
    path = fit_path(features, None, Plan((2,), "moments"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="is a run, with heads of its own"):
        path.save(tmp_path / "run")
    (tmp_path / "mine" / "heads").mkdir(parents=True)
    (tmp_path / "mine" / "heads" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds notes.txt, which no fit wrote"):
        path.save(tmp_path / "mine")
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "heads").write_text("x")
    with pytest.raises(InputError, match="holds heads, which no fit wrote"):
        path.save(tmp_path / "file")
    cut_off = tmp_path / "cut" / ".heads-x"
    cut_off.mkdir(parents=True)
    path.save(tmp_path / "cut")
    assert not cut_off.exists()


@pytest.mark.parametrize("text", ["5-2", "1-300000000", "x", "1,-2"])
def test_sizes_that_are_no_sizes(text: str) -> None:
    with pytest.raises(InputError, match="-k: expected"):
        sizes_of(text)

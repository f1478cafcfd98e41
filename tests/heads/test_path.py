from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penult.cli.app import main
from penult.cli.values import sizes_of
from penult.errors import InputError
from penult.features.features import Features
from penult.features.saving import save_features
from penult.heads.cross_fit import affordable_folds
from penult.heads.extension import extend_path, extend_until
from penult.heads.path import Interrupted, fit_path
from penult.heads.plan import Plan
from penult.heads.refit.registry import REFITS
from penult.heads.select.joint import JointPath
from penult.heads.select.registry import SELECTIONS
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import top_k

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
        for refit in REFITS:
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


def test_budgets_that_nobody_can_fit_are_refused() -> None:
    with pytest.raises(InputError, match="need the selection curvature or moments, found wanda"):
        Plan((1, 3), "wanda", max_features=7)
    with pytest.raises(InputError, match="do not go together"):
        Plan((1, 3), max_features=7, budget="mean")
    with pytest.raises(InputError, match="budget must be one of each, mean, found some"):
        Plan((1, 3), budget="some")
    with pytest.raises(InputError, match="a prior draws the softmax refit .* least-squares has n"):
        Plan((1, 3), "moments", "least-squares", prior=0.5)
    with pytest.raises(InputError, match="prior must be a number, 0 or more, found -1"):
        Plan((1, 3), prior=-1)
    with pytest.raises(InputError, match="a pool is an exact number"):
        Plan((1, 3), pool=4, max_features=4)
    features, _ = planted(300)
    with pytest.raises(InputError, match=r"different features must lie in \[3, 30\]"):
        fit_path(features, None, Plan((1, 3), pool=2))
    with pytest.raises(InputError, match="6 classes with k = 1 read 6 at most"):
        fit_path(features, None, Plan((1, 3), pool=7))


def test_a_path_says_how_near_its_heads_are() -> None:
    features, _ = planted(600)
    held_out, _ = planted(400, seed=1)
    path = fit_path(features, held_out, Plan((1, 2, PER_CLASS)))
    z, labels = held_out.arrays()
    dense = features.require_head()(z)
    for step, row in zip(path.steps, path.document()["path"], strict=True):
        with torch.no_grad():
            logits = step.head(z)
        p = dense.softmax(1).double()
        kl = (p * (dense.log_softmax(1) - logits.log_softmax(1)).double()).sum(1).mean()
        assert row["accuracy"] == float((logits.argmax(1) == labels).double().mean())
        assert row["agreement"] == float((logits.argmax(1) == dense.argmax(1)).double().mean())
        assert row["kl"] == pytest.approx(float(kl), abs=1e-6)
        assert row["converged"]
    kls = [row["kl"] for row in path.document()["path"]]
    assert kls == sorted(kls, reverse=True)


def test_unlabelled_features_are_fitted_and_never_judged_on() -> None:
    features, _ = planted(40)
    also, _ = planted(2000, seed=2)
    unlabelled = Features.of(also.arrays()[0], torch.zeros(2000, dtype=torch.int64))
    held_out, _ = planted(2000, seed=1)
    alone, more = (
        fit_path(features, held_out, Plan((2,)), also=other) for other in (None, unlabelled)
    )
    first, second = (path.document()["path"][0]["kl"] for path in (alone, more))
    assert second < first
    assert more.document()["n_also"] == 2000
    judged = fit_path(features, None, Plan((2,)), also=unlabelled)
    z, labels = features.arrays()
    with torch.no_grad():
        accuracy = float((judged[2](z).argmax(1) == labels).double().mean())
    assert judged.steps[0].accuracy == pytest.approx(accuracy)
    other = Features.of(torch.rand(5, 4), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(InputError, match=r"30 in the features and 4 in the unlabelled ones"):
        fit_path(features, None, also=other)
    with pytest.raises(InputError, match="are fitted without labels"):
        fit_path(features, None, Plan((2,), labels=True), also=unlabelled)


def test_a_path_goes_on_with_further_sizes() -> None:
    features, _ = planted(300)
    path = fit_path(features, None, Plan((1, 2)))
    longer = extend_path(path, [2, 4, 30])
    assert [step.k for step in longer.steps] == [1, 2, 4, 30]
    assert longer.plan.ks == (1, 2, 4, 30)
    assert longer[1] is path[1]
    assert longer.document()["path"][-1]["kl"] < 1e-4
    assert extend_path(path, [1]) is path
    held_out, _ = planted(1000, seed=1)
    path = fit_path(features, held_out, Plan((1, 2)))
    said: list[str] = []
    assert not path.is_good(0.01)
    found = extend_until(path, 0.01, held_out, say=said.append)
    assert [step.k for step in found.steps] == [1, 2, 30]
    assert found.is_good(0.01)
    assert len(said) == 1  # how long it will take depends on the machine
    assert said[0].startswith(
        "no head is good enough yet: going on with k = 30, all features, about "
    )
    assert extend_until(found, 0.01, held_out) is found
    dense = features.require_head()
    assert torch.equal(found[30].dense_weight(), dense.weight), (
        "all features: the dense head itself"
    )
    assert torch.equal(found[30].bias, dense.bias)


def test_more_features_than_a_path_reaches_one_by_one() -> None:
    """Backward in large steps: as good as the dense head long before all features are read."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 300, generator=generator)
    weight = torch.randn(5, 300, generator=generator) * torch.logspace(0, -6, 300)
    features = Features.of(z, (z @ weight.T).argmax(1), weight)
    for plan in (Plan((70, 128)), Plan((70, 128), budget="mean"), Plan((70, 128), pool=150)):
        path = fit_path(features, None, plan)
        for step in path.steps:
            assert len(step.head.indices) == 5 * step.k
            assert step.counts is not None
            assert (step.counts.agreement or 0) > 0.95
            if plan.pool:
                assert step.n_features_used == 150


class Stop:
    """Progress that interrupts after so many heads."""

    def __init__(self, after: int, what: type[BaseException]) -> None:
        self.after, self.what, self.said = after, what, set[str]()

    def __call__(self, name: str) -> Any:
        def heard(done: int, total: int) -> None:
            assert 0 <= done <= total
            self.said.add(name)
            if name == "heads" and done == self.after:
                raise self.what

        return heard


def test_an_interrupted_fit_keeps_what_is_done() -> None:
    features, _ = planted(300)
    with pytest.raises(Interrupted) as interrupted:
        fit_path(features, None, Plan((1, 2, 4)), Stop(2, KeyboardInterrupt))
    path = interrupted.value.path
    assert [step.k for step in path.steps] == [2, 4]
    assert path.unfinished == (1,)
    assert path.steps[0].accuracy is not None
    stop = Stop(0, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt) as early:
        fit_path(features, None, Plan((1, 2, 4)), stop)
    assert not isinstance(early.value, Interrupted)
    fit_path(features, None, Plan((1, 2)), said := Stop(-1, KeyboardInterrupt))
    assert said.said == {"samples", "choosing features", "passes", "heads"}


def test_a_time_limit_keeps_the_path_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = planted(300)
    whole = fit_path(features, None, Plan((1, 2, 4)), time_limit=600)
    assert whole.unfinished == ()
    clock = [0.0]
    monkeypatch.setattr("penult.heads.pace.time.monotonic", lambda: clock[0])

    class Late(Stop):
        def __call__(self, name: str) -> Any:
            def heard(done: int, total: int) -> None:
                clock[0] += 1000.0 if name == "heads" and done == 1 else 0.0

            return heard

    path = fit_path(features, None, Plan((1, 2, 4)), Late(0, ValueError), time_limit=500)
    assert [step.k for step in path.steps] == [4]
    assert path.document()["unfinished"] == [1, 2]
    monkeypatch.setattr("penult.heads.pace.time.monotonic", iter(range(0, 10**9, 100)).__next__)
    with pytest.raises(InputError, match="limit of 50 s passed before the first head, k = 4"):
        fit_path(features, None, Plan((1, 4)), time_limit=49.9999)
    with pytest.raises(InputError, match="time limit must be above 0 seconds, found 0"):
        fit_path(features, None, Plan((1, 4)), time_limit=0)


def test_a_refit_that_did_not_converge_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penult.heads.refit.softmax.MOST_PASSES", 1)
    monkeypatch.setattr("penult.heads.refit.softmax.tolerance_of", lambda *_: 1e-9)
    monkeypatch.setattr("penult.heads.refit.registry.tolerance_of", lambda *_: 1e-9)
    features, _ = planted(300)
    with pytest.warns(UserWarning, match="refit of k = 2 ended before it converged"):
        path = fit_path(features, None, Plan((2,)))
    assert not path.document()["path"][0]["converged"]


def test_ten_samples_one_of_each_class_and_numbers_beyond_all_bounds() -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(10, 64, generator=generator)
    weight = torch.randn(10, 64, generator=generator)
    few = Features.of((z + 3 * weight).relu(), torch.arange(10), weight * 3 / 8)
    for select in SELECTIONS:
        for step in fit_path(few, None, Plan((1, 5), select)).steps:
            assert bool(step.head.values.isfinite().all())
    large = Features.of(z * 1e25, torch.arange(10), weight * 1e20)
    for select in ("curvature", "moments"):
        with pytest.raises(InputError, match="logits reach about"):
            fit_path(large, None, Plan((2,), select))


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
    assert affordable_folds(9, 4, 3, 1000) == 0, "samples that cannot judge do not help"
    assert affordable_folds(1000, 64, 10, 100_000) == 5
    assert affordable_folds(1000, 64, 10, 10_000_000) == 0, "each fold is fitted to them"


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


def test_the_limit_is_heard_within_a_long_step(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = planted(300)
    clock = [0.0]
    monkeypatch.setattr("penult.heads.pace.time.monotonic", lambda: clock[0])
    improved = JointPath._improve

    def late(self: JointPath, pairs: torch.Tensor) -> Any:
        clock[0] += 1000.0 if len(pairs) <= 2 * N_CLASSES else 0.0
        found = improved(self, pairs)
        assert clock[0] == 0, "a step that began too late came to its end"
        return found

    monkeypatch.setattr(JointPath, "_improve", late)
    path = fit_path(features, None, Plan((1, 2, 4)), time_limit=500)
    assert [step.k for step in path.steps] == [4]
    assert path.unfinished == (1, 2)


@pytest.mark.parametrize("seed", range(4))
def test_the_sizes_asked_for_do_not_decide_how_good_a_head_is(seed: int) -> None:
    features = generated(seed)
    whole = fit_path(features, None, Plan(tuple(range(1, 13))))
    for ks in ((3, 12), (2, 6, 12)):
        some = fit_path(features, None, Plan(ks))
        for step in some.steps:
            full = next(one for one in whole.steps if one.k == step.k)
            assert step.counts
            assert full.counts
            found, best = step.counts.document()["kl"], full.counts.document()["kl"]
            assert found <= 1.15 * best + 1e-3, f"k = {step.k} of {ks}: {found}, else {best}"


def generated(seed: int) -> Features:
    """Features as after a ReLU, which 6 classes read in part and with unequal weights."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(40, 8, generator=generator)
    z = torch.randn(600, 40, generator=generator)
    z = (z + torch.randn(600, 8, generator=generator) @ mixed.T / 3).relu()
    weight = torch.randn(6, 40, generator=generator) * torch.rand(6, 40, generator=generator)
    return Features.of(z, (z @ weight.T).argmax(1), weight)


@pytest.mark.parametrize("ks", [(2.5,), 4, "12", (1, None)])
def test_sizes_that_are_none_are_said(ks: Any) -> None:
    with pytest.raises(InputError, match="ks must be whole numbers, features per class"):
        Plan(ks)


def test_sizes_of_any_library_and_the_usual_ones() -> None:
    assert Plan(np.array([2, 4])).ks == (2, 4)  # type: ignore[arg-type]
    scores = torch.rand(3, 6)
    of_numpy = top_k(scores, np.int64(2))  # type: ignore[arg-type]
    assert torch.equal(of_numpy.indices, top_k(scores, 2).indices)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(60, 4, generator=generator)
    features = Features.of(z, z[:, :3].argmax(1), torch.eye(3, 4), torch.zeros(3))
    assert [step.k for step in fit_path(features).steps] == [1, 2, 3]
    with pytest.raises(InputError, match="a Plan was given as evaluation"):
        fit_path(features, Plan((1,)))  # type: ignore[arg-type]

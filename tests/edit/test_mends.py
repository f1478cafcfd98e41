from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from command import penult
from penult.edit.mends import MENDS, compare_mends
from penult.edit.refits import balanced_draw, weighted_regression
from penult.errors import InputError
from penult.features.features import Features
from penult.features.groups import Attribute, Groups
from penult.features.shards import load_dense
from penult.network.head import Head
from penult.runs.analyze import Options, analyze_features
from penult.runs.run import Run


def confounded(folder: Path, n: int = 800) -> Run:
    """Two classes by one weak and one strong feature; the strong one follows a group instead."""
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (n,), generator=g)
    same = torch.rand(n, generator=g) < 0.7
    group = torch.where(same, labels, 1 - labels)
    z = torch.randn(n, 4, generator=g)
    z[:, 0] += 2.0 * labels
    z[:, 1] += 6.0 * group
    weight = torch.tensor([[0.0, 0, 0, 0], [0.2, 2.0, 0, 0]])
    features = Features.of(z, labels, weight, torch.tensor([0.0, -6.0]), ["a", "b"])
    run = analyze_features(features, None, folder / "run", Options(fit=False))
    groups = Groups({"sex": Attribute("sex", ("f", "m"), group)}, n)
    groups.save(run.folder / "groups" / "train.safetensors")
    return run


def test_balanced_draws_hold_as_many_of_every_group() -> None:
    groups = torch.tensor([0] * 5 + [1] * 20 + [3] * 9 + [-1] * 4)
    rows = balanced_draw(groups, 0)
    assert torch.bincount(groups[rows]).tolist() == [5, 5, 0, 5]
    assert len(torch.unique(rows)) == 15
    assert not torch.equal(rows, balanced_draw(groups, 1))


def test_weighted_regression_counts_every_group_alike() -> None:
    """Repeating the samples of one group changes nothing."""
    g = torch.Generator().manual_seed(0)
    z, labels = torch.randn(60, 3, generator=g), torch.arange(60) % 2
    groups = torch.arange(60) // 30
    head, whole = Head("", torch.zeros(2, 3), torch.zeros(2)), torch.ones(3, dtype=torch.bool)
    once = weighted_regression(head, z, labels, groups, whole, 1.0)
    wrong = weighted_regression(head, z, labels, 0 * groups, whole, 1.0)
    assert torch.allclose(once.weight, wrong.weight, atol=1e-3)  # both groups have 30
    counted = torch.tensor([1.0, 0.0])
    first = weighted_regression(head, z, labels, groups, whole, 1.0, counted)
    assert not torch.allclose(once.weight, first.weight, atol=1e-2)


def test_mends_that_balance_groups_save_the_worst_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = confounded(tmp_path)
    quick = [mend for mend in MENDS if "DFR" not in mend.name and "suspects" not in mend.name]
    found = {row["name"]: row for row in compare_mends(run, "sex", seeds=2, mends=quick)["mends"]}
    assert found["as it is"]["worst"] < 0.2
    assert found["as it is"]["lost"] == found["as it is"]["features"] == 0
    assert found["refit, groups balanced"]["worst"] > 0.6
    assert "groups balanced, sparse" not in found  # the run has no sparse heads
    with pytest.raises(InputError, match="the groups have no attribute 'age'; they have sex"):
        compare_mends(run, "age")
    with pytest.raises(InputError, match="seeds must be at least 1"):
        compare_mends(run, "sex", seeds=0)
    out = tmp_path / "mended"
    given = ["--groups", "sex", "--seeds", "1", "--name", "refit, groups balanced"]
    assert penult("mend", str(run.folder), *given, "--out", str(out), "--json") == 0
    head = load_dense(out / "head.safetensors")
    z, labels = run.evaluation().arrays()
    group = Groups.load(run.folder / "groups" / "train.safetensors", len(labels))
    small = labels != group.attribute("sex").codes
    assert float((head(z).argmax(1) == labels)[small].double().mean()) > 0.6
    rows = json.loads(capsys.readouterr().out)["mends"]
    assert [row["name"] for row in rows][:3] == ["as it is", "suspects off", "suspects capped"]
    assert penult("mend", str(run.folder), "--groups", "sex", "--name", "x") == 2
    assert "no mend is called 'x'; there are as it is, suspects off" in capsys.readouterr().err
    (run.folder / "groups" / "train.safetensors").unlink()
    assert penult("mend", str(run.folder), "--groups", "sex") == 2
    assert "have no groups: give them with penult groups" in capsys.readouterr().err

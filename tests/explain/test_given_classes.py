"""Explanations of decisions on single classes of multi-label data, against naive numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from command import penult
from penult.errors import InputError
from penult.explain.explanation import Explanation
from penult.explain.given_classes import one_class, to_explain
from penult.heads.sparse_head import SparseHead
from penult.runs.run import Run


@pytest.mark.parametrize("dense", [True, False])
def test_each_decision_is_the_logit_against_zero(two_digits: Path, dense: bool) -> None:
    run = Run.open(two_digits / "run")
    head = run.train().require_head()
    z, labels = run.evaluation().arrays()
    for row in (0, 7):
        each = Explanation.each(run, f"eval:{row}", dense=dense, maps=False)
        given = each[0].several
        assert given is not None
        assert given.labels == tuple(labels[row].nonzero()[:, 0].tolist())
        own = head.weight.double() @ z[row].double() + head.bias.double()
        assert set(given.dense_given) == set((own > 0).nonzero()[:, 0].tolist())
        explained = [one.several.of for one in each if one.several]
        assert set(explained) == {*given.given, *given.labels}
        for found in each:
            assert found.several is not None
            c = found.several.of
            assert found.terms.total == pytest.approx(float(given.logits[c]), abs=1e-4)
            chance = 1 / (1 + np.exp(-abs(found.terms.total)))
            assert found.probability() == pytest.approx(chance, abs=1e-4)
            assert found.predicted == int(given.logits[c] > 0)
            assert found.label == int(labels[row, c])
            if dense:
                weights = {term.feature: term.weight for term in found.terms.terms}
                assert weights[5] == pytest.approx(float(head.weight[c, 5]))


def test_a_sufficient_reason_holds_whatever_the_others_do(two_digits: Path) -> None:
    run = Run.open(two_digits / "run")
    moments = run.moments()
    found = Explanation.of(run, "eval:3", class_=2, dense=True, maps=False)
    assert found.several is not None
    head = run.train().require_head()
    rng = torch.Generator().manual_seed(0)
    drawn = torch.rand(4000, head.n_features, generator=rng, dtype=torch.float64)
    low, high = moments.low, moments.high
    others = low + drawn * (high - low)
    held = list(found.reason.features)
    others[:, held] = found.features.double()[held]
    others[0] = torch.where(head.weight[2] > 0, low, high)  # the worst, should it be given
    others[1] = torch.where(head.weight[2] > 0, high, low)
    others[:2, held] = found.features.double()[held]
    logits = others @ head.weight[2].double() + head.bias[2].double()
    assert found.reason.valid
    assert bool(((logits > 0) == bool(found.predicted)).all())


def test_one_class_of_a_sparse_head() -> None:
    from penult.heads.subspaces import Subspaces

    weight, bias = torch.randn(4, 6), torch.randn(4)
    subspaces = Subspaces.of([[0, 2], [], [5, 1, 3], [4]], 6)
    head = SparseHead.from_dense(weight, bias, subspaces)
    z = torch.randn(9, 6)
    for c in range(4):
        pair = one_class(head, c)(z)
        assert torch.equal(pair[:, 0], torch.zeros(9))
        torch.testing.assert_close(pair[:, 1], head(z)[:, c])


def test_what_is_explained() -> None:
    logits = torch.tensor([-1.0, 2.0, -3.0, 0.5])
    assert to_explain(logits, None) == [1, 3]
    assert to_explain(logits, (2,)) == [1, 3, 2]
    assert to_explain(-logits.abs(), None) == [3]
    assert len(to_explain(torch.ones(40), None)) == 5


def test_the_command(two_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(two_digits / "run")
    out = tmp_path / "why.png"
    assert penult("explain", run, "eval:3", "--out", str(out), "--no-maps") == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "Labels" in page
    assert "so it is given" in page
    each = Explanation.each(run, "eval:3", maps=False)
    made = sorted(file.name for file in tmp_path.glob("why*.png"))
    numbers = sorted(one.several.of for one in each if one.several)
    assert made == (["why.png"] if len(each) == 1 else sorted(f"why-{c}.png" for c in numbers))
    assert penult("explain", run, "eval:3", "--class", "4", "--json", "--no-maps") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["class"] == "4"
    assert document["predicted"] in ("4", "not 4")
    assert len(document["classes"]) == 5
    assert set(document["labels"]) <= set(map(str, range(10)))
    with pytest.raises(InputError, match="--against compares two classes"):
        Explanation.of(run, "eval:3", class_=1, against=2)

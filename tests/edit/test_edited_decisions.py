"""Edits of a head with a sigmoid per class, against numbers by numpy and scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from command import penult
from penult.edit.edit import Edit
from penult.edit.edited_run import EditedRun
from penult.edit.logits import LogitTable
from penult.edit.recipe import Recipe
from penult.errors import InputError
from penult.features.features import Features
from penult.heads.bounded_head import BoundedHead, bounded
from penult.network.head import Head
from penult.runs.run import Run


def test_off_is_that_of_a_naive_computation(two_digits: Path) -> None:
    run = Run.open(two_digits / "run")
    head = run.train().require_head()
    z, labels = (part.numpy() for part in run.evaluation().arrays())
    middle = run.train().arrays()[0].double().mean(0).numpy()
    weight, bias = head.weight.double().numpy(), head.bias.double().numpy()
    # The feature that speaks most for class 3 and that varies.
    j = int(np.argmax(weight[3] * z.std(0)))
    found = EditedRun.of(run, Recipe((Edit("off", feature=j, of=3), Edit("off", feature=5))))
    edited = np.repeat(z.astype(float)[None], 10, 0)
    edited[:, :, 5] = middle[5]
    edited[3, :, j] = middle[j]
    before = z.astype(float) @ weight.T + bias
    after = np.stack([edited[c] @ weight[c] + bias[c] for c in range(10)], 1)
    was, now = (before > 0) == labels, (after > 0) == labels
    assert (was & ~now)[:, 3].sum() > 0
    document = found.document
    assert document["link"] == "sigmoid"
    near = np.abs(after).min() < 1e-4  # rounding may turn such a decision
    slack = 1 if near else 0
    assert document["overall"]["lost"] == pytest.approx((was & ~now).sum(), abs=slack)
    assert document["overall"]["won"] == pytest.approx((~was & now).sum(), abs=slack)
    for c, row in enumerate(document["classes"]):
        assert row["n_positive"] == labels[:, c].sum()
        assert row["lost"] == pytest.approx((was & ~now)[:, c].sum(), abs=slack)
        assert row["won"] == pytest.approx((~was & now)[:, c].sum(), abs=slack)
        assert row["interval"][0] <= row["loss"] <= row["interval"][1]
        for scores, side in zip((before, after), row["average_precision"], strict=True):
            naive = average_precision_score(labels[:, c], scores[:, c])
            assert side == pytest.approx(naive, abs=1e-3)
    # The decisions of one sample depend on each other: the interval is that of samples.
    net = (was.astype(int) - now).mean(1)
    low, high = document["overall"]["interval"]
    assert high - low > 3.8 * net.std() / np.sqrt(len(net))
    flips = document["flips"]
    assert flips["right_to_wrong"]["n_samples"] == document["overall"]["lost"]
    assert flips["wrong_to_right"]["n_samples"] == document["overall"]["won"]
    names = run.summary()["class_names"]
    for flip in flips["right_to_wrong"]["samples"]:
        c = names.index(flip["class"])
        assert flip["label"] == flip["before"] != flip["after"]
        assert {flip["before"], flip["after"]} == {flip["class"], f"not {flip['class']}"}
        assert (flip["before"] == flip["class"]) == bool(labels[flip["row"], c])
        changes = {part["feature"]: part["change"] for part in flip["features"]}
        assert set(changes) <= {j, 5}
        change = after[flip["row"], c] - before[flip["row"], c]
        assert sum(changes.values()) == pytest.approx(change, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_classes_of_near_heads_are_those_computed_anew(seed: int) -> None:
    """Few rows are looked at, and all of them decided as from the beginning."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(300, 8, generator=generator)
    labels = torch.rand(300, 5, generator=generator) < 0.3
    weight = torch.randn(5, 8, generator=generator)
    # Some decisions lie on their threshold but for the rounding of float32.
    z[:20] -= (z[:20] @ weight[0])[:, None] * weight[0] / weight[0].square().sum()
    head = Head("", weight, torch.zeros(5), link="sigmoid")
    features = Features.of(z, labels, weight, torch.zeros(5), multi_label=True)
    table = LogitTable(features, head)

    def exact(other: Head) -> torch.Tensor:
        logits: torch.Tensor = other(z.double())
        return logits > 0

    assert torch.equal(table.classes, exact(head))
    moved = weight.clone()
    moved[2, 3] += 0.3
    moved[0, 1] = 0
    shift = torch.tensor([0.0, 0.1, 0, -0.2, 0])
    other = Head("", moved, shift, link="sigmoid")
    assert torch.equal(table.classify(other), exact(other))
    one = bounded(other)
    scales = torch.zeros(5, 1)
    scales[1] = 1.0
    direction = torch.zeros(1, 8)
    direction[0, 2] = 1.0
    capped = BoundedHead(
        *("", one.weight, one.bias, "none", False, direction, torch.tensor([0.2]), scales),
        link="sigmoid",
    )
    assert torch.equal(table.classify(capped), exact(capped))
    everything = Head("", torch.randn(5, 8, generator=generator), shift, link="sigmoid")
    assert torch.equal(table.classify(everything), exact(everything))
    assert capped.fingerprint().endswith("sigmoid")


def test_the_command_and_what_it_writes(
    two_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(two_digits / "run")
    out = tmp_path / "edited"
    edits = ["--off", "5:3", "--cap", "8:6", "--scale", "2=0.5", "--direction-off", "1:2"]
    assert penult("edit", run, *edits, "--out", str(out)) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "All decisions, one for each sample and class" in page
    assert "mean average precision" in page
    assert BoundedHead.load(out / "head.safetensors").multi_label
    assert penult("edit", run, "--refit", "labels", "--drop-unused", "0.05", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    precision = document["overall"]["mean_average_precision"]
    assert precision[1] > precision[0] - 0.1
    assert penult("edit", run, "-k", "5", "--off", "8:6") in (0, 2)
    capsys.readouterr()
    for refit in ("balanced:side", "least-spurious"):
        assert penult("edit", run, "--off", "5:3", "--refit", refit) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert "multi-label" in said[-1]


def test_a_refit_is_the_logistic_regression_of_each_class(two_digits: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    run = Run.open(two_digits / "run")
    found = EditedRun.of(run, Recipe((Edit("refit", to="labels"),)))
    z, labels = (part.double().numpy() for part in run.train().arrays())
    logits = found.edited.head(torch.from_numpy(z)).detach().numpy()
    for c in (0, 6):
        naive = LogisticRegression(C=1e4, max_iter=5000).fit(z, labels[:, c])
        same = (logits[:, c] > 0) == naive.predict(z)
        assert same.mean() > 0.97


def test_mend_says_in_one_line_that_it_is_not_for_these(two_digits: Path) -> None:
    run = Run.open(two_digits / "run")
    with pytest.raises(InputError, match="one class per sample.*multi-label.*docs/data.md"):
        run.train().require_one_label("a comparison of mends")

"""A network with a sigmoid per class, through the commands, against numbers by numpy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from command import penult
from penult.data.forms import DataOptions
from penult.data.open import open_data
from penult.features.features import Features
from penult.features.saving import save_features
from penult.runs.run import Run


def average_precision(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Precision at each threshold times what it adds to the recall; equal scores come together."""
    total, recall = 0.0, 0.0
    for threshold in np.unique(scores)[::-1]:
        said = scores >= threshold
        found = (said & labels).sum() / labels.sum()
        total += (found - recall) * (said & labels).sum() / said.sum()
        recall = found
    return float(total)


def balanced(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    yes, no = scores[labels] > 0, scores[~labels] <= 0
    return float((yes.mean() + no.mean()) / 2)


def logits_of(features: Features, weight: torch.Tensor, bias: torch.Tensor) -> NDArray[np.float64]:
    z = features.arrays()[0]
    return torch.nn.functional.linear(z, weight.detach(), bias.detach()).double().numpy()


def test_run_agrees_with_naive_numbers(two_digits: Path) -> None:
    run = Run.open(two_digits / "run")
    summary, held_out = run.summary(), run.evaluation()
    head = held_out.require_head()
    assert summary["link"] == head.link == "sigmoid"
    labels = held_out.labels().numpy()
    truth = np.load(two_digits / "eval.npz")["labels"] == 1
    assert (labels == truth).all()
    rows = [(summary["dense"], logits_of(held_out, head.weight, head.bias))]
    for row in summary["path"]:
        sparse = run.head(row["select"], row["k"])
        rows.append((row, logits_of(held_out, sparse.dense_weight(), sparse.bias)))
    for row, logits in rows:
        assert row["accuracy"] == pytest.approx(((logits > 0) == labels).mean(), abs=1e-3)
        for c in range(10):
            own, scores = labels[:, c], logits[:, c]
            assert row["average_precision"][c] == pytest.approx(
                average_precision(own, scores), abs=2e-3
            )
            assert row["balanced"][c] == pytest.approx(balanced(own, scores), abs=2e-2)
        assert row["mean_average_precision"] == pytest.approx(np.mean(row["average_precision"]))
    dense = summary["dense"]
    assert dense["mean_average_precision"] > 0.6  # by guessing 0.2
    assert dense["commonest"]["accuracy"] == pytest.approx(
        np.maximum(labels.mean(0), 1 - labels.mean(0)).mean()
    )
    counts = np.load(two_digits / "train.npz")["labels"].sum(0)
    assert summary["class_counts"] == counts.tolist()
    note = next(note for note in summary["notes"]["train"] if "multi-label" in note)
    assert "10 classes" in note


def test_agreement_divergence_and_clusters(two_digits: Path) -> None:
    run = Run.open(two_digits / "run")
    held_out = run.evaluation()
    head, labels = held_out.require_head(), held_out.labels().numpy()
    dense = logits_of(held_out, head.weight, head.bias)
    row = next(row for row in run.summary()["path"] if row["k"] == 3)
    sparse = run.head(row["select"], 3)
    own = logits_of(held_out, sparse.dense_weight(), sparse.bias)
    assert row["agreement"] == pytest.approx(((dense > 0) == (own > 0)).mean(), abs=1e-3)
    p, q = 1 / (1 + np.exp(-dense)), 1 / (1 + np.exp(-own))
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert row["kl"] == pytest.approx(kl.mean(), rel=1e-2)
    lost = ((dense > 0) == labels).astype(int) - ((own > 0) == labels)
    assert row["loss"] == pytest.approx(lost.mean(), abs=1e-3)
    # The interval is at least as wide as that of samples drawn anew.
    width = (row["interval"][1] - row["interval"][0]) / 2
    assert width > 1.9 * lost.mean(1).std() / np.sqrt(len(lost))
    assert row["interval"][0] < row["loss"] < row["interval"][1]


def test_moments_of_several_labels(two_digits: Path) -> None:
    run = Run.open(two_digits / "run")
    z, labels = run.train().arrays()
    moments = run.moments()
    assert moments.n_samples == len(z)
    torch.testing.assert_close(moments.mean(), z.double().mean(0))
    covariance = z.double().T.cov(correction=0)
    torch.testing.assert_close(moments.covariance(), covariance)
    for c in range(10):
        torch.testing.assert_close(moments.class_means()[c], z.double()[labels[:, c]].mean(0))


def test_show_names_what_is_meant(two_digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert penult("show", str(two_digits / "run")) == 0
    page = capsys.readouterr().out
    dense = Run.open(two_digits / "run").summary()["dense"]
    assert f"{100 * dense['mean_average_precision']:.2f}" in page
    assert "yes-or-no" in page
    assert "always giving the commoner answer for each class" in " ".join(page.split())


def test_fit_of_its_features(
    two_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.open(two_digits / "run")
    save_features(tmp_path / "train.safetensors", run.train())
    save_features(tmp_path / "eval.safetensors", run.evaluation())
    opened = Features.open(tmp_path / "eval.safetensors")
    assert opened.multi_label
    assert torch.equal(opened.labels(), run.evaluation().labels())
    arguments = ["fit", str(tmp_path / "train.safetensors"), "--out", str(tmp_path / "heads")]
    arguments += ["--eval", str(tmp_path / "eval.safetensors"), "-k", "3,5", "--json"]
    assert penult(*arguments, "--tolerance", "0.2") == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["k"]: row for row in run.summary()["path"]}
    for row in document["path"]:
        assert row["accuracy"] == pytest.approx(rows[row["k"]]["accuracy"], abs=0.01)
        assert len(row["average_precision"]) == 10
    assert document["pick"]["k"] == 3
    assert "yes-or-no decisions" in document["pick"]["why"]


def test_resumes_to_the_same_bytes(two_digits: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(two_digits / "run", copy)
    about = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**about, "complete": False}))
    (copy / "summary.json").unlink()
    from two_digits import analyse

    analyse(two_digits, copy)
    first = (two_digits / "run" / "summary.json").read_bytes()
    assert (copy / "summary.json").read_bytes() == first


def test_single_label_and_predicted(two_digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"{two_digits / 'data.py'}:train"
    with pytest.raises(Exception, match="row with"):
        open_data(data, options=DataOptions(multi_label=False))
    assert open_data(data).multi_label


def test_what_does_not_apply_is_refused_in_one_line(
    two_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(two_digits / "run")
    (tmp_path / "groups.csv").write_text("row,hospital\n0,a\n1,b\n")
    for command in (
        ["tune", run, "-k", "3", "--head-only"],
        ["groups", run, str(tmp_path / "groups.csv"), "--part", "train"],
    ):
        assert penult(*command) == 2, command
        said = capsys.readouterr().err.strip().splitlines()
        assert "multi-label" in said[-1]
        assert "docs/data.md" in said[-1]

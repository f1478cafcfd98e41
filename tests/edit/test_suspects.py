from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from command import penult
from penult.edit.balance import Calibrated, Direction, calibration
from penult.edit.edit import Edit
from penult.edit.gaps import all_gaps, one_gap, within_classes
from penult.edit.logits import LogitTable
from penult.edit.overuse import Contrast, background
from penult.edit.registry import apply_edit
from penult.edit.shortcuts import find_shortcuts, shortcuts_document
from penult.edit.suspects import Pair, auc, find_suspects, off, pull
from penult.edit.verdicts import add_verdict
from penult.errors import InputError
from penult.features.features import Features
from penult.features.groups import Attribute, Groups
from penult.features.saving import save_features
from penult.intervals import benjamini_hochberg, upper_tail
from penult.network.head import Head
from penult.runs.analyze import Options, analyze_features
from planted import drawn, run_of, setting_of
from watermark import PLANTED, Watermarked, watermarked


def contrast(new: Features, trained: Features | None) -> Contrast:
    """Samples next to those of the training, by the head of the former."""
    head = new.require_head()
    parts = [None if f is None else Calibrated.of(LogitTable(f, head)) for f in (new, trained)]
    assert parts[0] is not None
    return Contrast(parts[0], parts[1])


def suspects_of(made: Watermarked) -> tuple[int, Pair]:
    """How many suspects there are, and the first of all pairs."""
    found, listed = find_suspects(contrast(made.evaluation, made.train))
    return found["n_suspects"], listed[0][0]


def judged(seed: int, cue: str) -> tuple[int, Pair, Watermarked]:
    made = watermarked(seed, cue=cue)
    n, first = suspects_of(made)
    return n, first, made


def carries_the_cue(made: Watermarked, pair: Pair) -> bool:
    """Whether a pair is of the planted class, and tells within it who has the cue."""
    own = made.evaluation.labels() == PLANTED
    assert pair.feature is not None
    x = made.evaluation.arrays()[0][own, pair.feature]
    area = roc_auc_score(made.has[own], x)
    return pair.of == PLANTED and abs(area - 0.5) > 0.3


@pytest.mark.parametrize("cue", ["frame", "spot", "digit"])
def test_a_planted_cue_is_the_first_suspect(cue: str) -> None:
    found = [judged(s, cue) for s in range(3)]
    assert sum(carries_the_cue(made, first) for _, first, made in found) >= 2
    assert sum(n > 0 for n, _, _ in found) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("cue", ["frame", "spot", "digit"])
def test_a_planted_cue_is_the_first_suspect_in_19_of_20(cue: str) -> None:
    found = [judged(s, cue) for s in range(20)]
    assert sum(carries_the_cue(made, first) for _, first, made in found) >= 19


@pytest.mark.slow
def test_without_a_plant_there_is_no_suspect_in_19_of_20() -> None:
    found = [suspects_of(watermarked(s, plant=False))[0] for s in range(20)]
    assert sum(n == 0 for n in found) >= 19


def test_scores_of_the_weights_that_suit_the_samples_are_standard_normal() -> None:
    """Where labels are drawn from the head's own probabilities, nothing is overused."""
    rejected, scores = 0, []
    for seed in range(20):
        features = drawn(n=2000, seed=seed)
        z, head = features.arrays()[0], features.require_head()
        g = torch.Generator().manual_seed(seed)
        labels = torch.multinomial(head(z).softmax(1), 1, generator=g)[:, 0]
        tested = contrast(Features.of(z, labels, head.weight, head.bias), None).weights()
        scores.append(tested.score.flatten())
        rejected += int((upper_tail(tested.score) < 0.05 / tested.score.numel()).any())
    assert rejected <= 4
    assert float(torch.cat(scores).std()) == pytest.approx(1, abs=0.15)


def gradients(z: Tensor, labels: Tensor, head: Head, by_class: bool) -> tuple[Tensor, Tensor]:
    """Gradient of the calibrated cross-entropy of each weight, and the sum of its squares."""
    scale, shift = calibration(head(z), labels, by_class)
    logits = head(z) - head(z).mean(1, keepdim=True)
    residual = ((logits * scale + shift).softmax(1) - F.one_hot(labels, head.n_classes)).double()
    parts = residual[:, :, None] * (z - z.mean(0)).double()[:, None, :]
    return parts.sum(0), parts.square().sum(0)


@pytest.mark.parametrize("by_class", [False, True])
def test_scores_are_the_standardised_gradient_alone_and_next_to_the_training(
    by_class: bool,
) -> None:
    features, other = drawn(n=200), drawn(n=500, seed=9)
    head = features.require_head()
    sign = torch.sign(head.weight - head.weight.mean(0)).double()
    (g, v), (h, u) = (gradients(*f.arrays(), head, by_class) for f in (features, other))
    told = contrast(features, None).weights()
    alone = told.by_class if by_class else told.score
    assert torch.allclose(alone, sign * g / v.sqrt(), atol=1e-3)
    both = contrast(features, other).weights()
    within = torch.maximum(v / 200, u / 500)
    against = sign * (g / 200 - h / 500) / (v / 200 / 200 + within / 500).sqrt()
    if by_class:
        assert torch.allclose(both.by_class, against, atol=1e-3)
    else:
        assert torch.allclose(
            both.score, torch.minimum(sign * g / (v * 1.4).sqrt(), against), atol=1e-3
        )
    one = Direction(1, 1, torch.eye(head.n_features)[2])
    along = contrast(features, other).directions([one]).score * sign[1, 2]
    if not by_class and float(sign[1, 2]) > 0:
        assert float(along[0]) == pytest.approx(float(both.score[1, 2]), abs=1e-3)


def untrained(seed: int, n_classes: int, steps: int) -> tuple[Features, Features]:
    """Samples that a head was trained on by a few steps only, and new ones like them."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(n_classes, 12, generator=g)
    labels = torch.randint(n_classes, (3000,), generator=g)
    z = (centres[labels] + 1.5 * torch.randn(3000, 12, generator=g)).relu()
    rows = torch.arange(3000) < 1500
    head = torch.nn.Linear(12, n_classes)
    with torch.no_grad():
        head.weight.copy_(0.5 * torch.randn(n_classes, 12, generator=g))
        head.bias.zero_()
    descent = torch.optim.SGD(head.parameters(), 0.1)
    for _ in range(steps):
        descent.zero_grad()
        torch.autograd.backward(F.cross_entropy(head(z[rows]), labels[rows]))
        descent.step()
    given = head.weight.detach(), head.bias.detach()
    return Features.of(z[~rows], labels[~rows], *given), Features.of(z[rows], labels[rows], *given)


@pytest.mark.parametrize("n_classes", [2, 6])
def test_weights_that_suit_no_sample_since_training_ended_early_are_no_suspects(
    n_classes: int,
) -> None:
    alone = together = 0
    for seed in range(10):
        new, trained = untrained(seed, n_classes, steps=5)
        tested = contrast(new, None).weights().score.flatten()
        alone += bool((benjamini_hochberg(upper_tail(tested).numpy()) <= 0.05).any())
        together += find_suspects(contrast(new, trained))[0]["n_suspects"] > 0
    assert alone >= 5
    assert together <= 1


def test_a_head_that_knows_its_samples_by_heart_has_no_suspects() -> None:
    found = 0
    for seed in range(10):
        g = torch.Generator().manual_seed(seed)
        centres, labels = torch.randn(4, 40, generator=g), torch.arange(1700) % 4
        z = centres[labels] + 3 * torch.randn(1700, 40, generator=g)
        z *= (torch.rand(1700, 1, generator=g) + 0.3) ** -1
        fitted = LogisticRegression(C=100.0, max_iter=2000).fit(z[:200], labels[:200])
        head = torch.tensor(fitted.coef_).float(), torch.tensor(fitted.intercept_).float()
        parts = [Features.of(z[i], labels[i], *head) for i in (slice(200, None), slice(200))]
        assert parts[1].dense_accuracy() == 1
        found += find_suspects(contrast(*parts))[0]["n_suspects"] > 0
    assert found <= 1


def test_the_background_is_that_of_normal_scores_whatever_happens_in_half_of_the_classes() -> None:
    g = torch.Generator().manual_seed(0)
    scores, of = torch.randn(20_000, generator=g).double(), torch.arange(20_000) % 10
    assert background(scores, of) == pytest.approx(1, abs=0.05)
    assert background(0.3 * scores, of) == 1
    wide = torch.where(of < 5, 30 * scores, 1.2 * scores)
    assert background(wide, of) == pytest.approx(1.2, abs=0.06)
    assert background(30 * scores, of) == 1.3
    assert background(scores[:0], of[:0]) == 1


def test_a_head_that_is_merely_too_sure_is_no_finding() -> None:
    features = drawn(n=2000, seed=1)
    z, head = features.arrays()[0], features.require_head()
    g = torch.Generator().manual_seed(0)
    labels = torch.multinomial((head(z) / 3).softmax(1), 1, generator=g)[:, 0]
    new = Features.of(z, labels, head.weight, head.bias)
    found, listed = find_suspects(contrast(new, features))
    assert found["n_suspects"] == 0
    assert all(q is not None and q > 0.05 for _, q in listed)


def test_without_samples_of_the_training_nothing_is_called_a_suspect() -> None:
    made = watermarked(0)
    found, listed = find_suspects(contrast(made.evaluation, None))
    assert (found["n_suspects"], found["n_compared"]) == (0, None)
    assert all(q is None for _, q in listed)
    assert carries_the_cue(made, listed[0][0])


def test_gaps_are_counted_as_by_hand() -> None:
    features = drawn(n=400)
    table = LogitTable(features, features.require_head())
    z, labels = features.arrays()
    right = table.classes == labels
    (found,) = all_gaps(table, torch.tensor([1, 1, 3]), torch.tensor([2, 4, 0]))
    for i, (c, j) in enumerate([(1, 2), (1, 4), (3, 0)]):
        x, ok = z[labels == c, j].numpy(), right[labels == c].numpy()
        order = np.argsort(x)
        n = -(-len(x) // 4)
        expected = ok[order[-n:]].mean() - ok[order[:n]].mean()
        assert float(found.value[i]) == pytest.approx(expected)
        low, high = (float(end[i]) for end in found.interval)
        assert low < expected < high
        assert one_gap(table, z[:, j], c) == found.document(i)
    places = within_classes(labels, 0)
    assert torch.equal(labels[places], labels)
    assert sorted(places.tolist()) == list(range(400))


def test_a_gap_of_a_feature_that_is_mostly_zero_or_constant() -> None:
    features = drawn(n=400)
    table = LogitTable(features, features.require_head())
    x = torch.zeros(400)
    assert one_gap(table, x, 1) is None
    rows = (features.labels() == 1).nonzero()[:, 0]
    x[rows[:7]] = 1.0
    found = one_gap(table, x, 1)
    assert found is not None
    assert found["high"]["n_samples"] == 7
    assert found["low"]["n_samples"] == len(rows) - 7


def test_switching_a_pair_off_changes_accuracy_as_computed_anew() -> None:
    features = drawn(n=400)
    head, (z, labels) = features.require_head(), features.arrays()
    table = LogitTable(features, head)
    for c, j in ((0, 1), (2, 3)):
        pair = Pair(c, j, None, float(head.weight[c, j]), 1.0, 0.0, 1.0)
        logits = head(z.double())
        moved = z[:, j].double() - z[:, j].double().mean()
        logits[:, c] -= float(head.weight[c, j]) * moved
        at = float(z[:, j].double().mean())
        found = off(table, z[:, j], pair, at)
        expected = float((logits.argmax(1) == labels).double().mean())
        assert found["overall"]["after"] == pytest.approx(expected)


def test_pull_and_auc_are_those_of_scikit_learn() -> None:
    features = drawn(n=400)
    head, (z, labels) = features.require_head(), features.arrays()
    table = LogitTable(features, head)
    found = pull(table, z[:, 2], 1)
    assert found is not None
    own = labels == 1
    high = ~own & (z[:, 2] >= z[own, 2].median())
    assert found["n_samples"] == int(high.sum())
    assert found["called"] == pytest.approx(float((table.classes[high] == 1).double().mean()))
    lead = table.leads(1)
    chosen = own | high
    area = roc_auc_score(own[chosen], lead[chosen])
    assert found["auc"] == pytest.approx(area)
    assert found["auc_interval"][0] < area < found["auc_interval"][1]


def test_intervals_of_the_auc_hold_as_often_as_they_say() -> None:
    g = torch.Generator().manual_seed(0)
    true = float(norm.cdf(1 / 2**0.5))
    held = 0
    for _ in range(300):
        first, second = torch.randn(40, generator=g) + 1, torch.randn(60, generator=g)
        _, ends = auc(first, second)
        assert ends is not None
        held += ends[0] <= true <= ends[1]
    assert 270 <= held <= 297


def frame_run(folder: Path) -> tuple[Watermarked, str]:
    made = watermarked(0)
    save_features(folder / "train.safetensors", made.train)
    run = analyze_features(made.train, made.evaluation, folder / "run", Options(fit=False))
    codes = made.has.long()
    groups = Groups({"frame": Attribute("frame", ("no", "yes"), codes)}, len(codes))
    groups.save(run.folder / "groups" / "eval.safetensors")
    return made, str(run.folder)


def test_the_command_finds_the_frame_tells_that_it_carries_it_and_shows_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = frame_run(tmp_path)
    assert penult("shortcuts", run, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    first = found["pairs"][0]
    assert first["class"] == str(PLANTED)
    assert abs(first["carries"][0]["auc"] - 0.5) > 0.3
    assert first["overuse"]["suspect"]
    assert len(first["samples"]["elsewhere"]) == 8
    assert any(row["direction"] is not None for row in found["pairs"])
    named = next(row for row in found["pairs"] if row["feature"] is not None)
    pair = f"{named['feature']}:{named['class']}"
    for row in [row for row in found["pairs"] if row["feature"] is not None][:3]:
        capsys.readouterr()
        assert penult("edit", run, "--off", f"{row['feature']}:{row['class']}", "--json") == 0
        edited = json.loads(capsys.readouterr().out)["overall"]
        assert row["off"]["overall"]["after"] == edited["after"], pair
    assert penult("verdict", run, pair, "shortcut") == 0
    capsys.readouterr()
    assert penult("shortcuts", run, "--listed", "5") == 0
    out = capsys.readouterr().out
    assert "pairs of a class and a feature are suspects (false discovery rate 5 %" in out
    assert "shortcut" in out
    assert penult("shortcuts", run, "--by", "gap", "--json") == 0
    gaps = [row["gap"]["interval"] for row in json.loads(capsys.readouterr().out)["pairs"][:5]]
    assert all(low > 0 or high < 0 for low, high in gaps)
    assert penult("shortcuts", run, "--rate", "2") == 2
    assert "must lie in (0, 1), found 2" in capsys.readouterr().err


def test_a_run_without_evaluation_samples_says_that_little_is_seen(tmp_path: Path) -> None:
    run = analyze_features(drawn(), None, tmp_path / "run", Options(fit=False))
    found = find_shortcuts(run)
    assert "no pair is called a suspect" in found["notes"][0]
    assert not any(row["overuse"]["suspect"] for row in found["pairs"])
    add_verdict(run, 2, None, "core", who="ann")
    kept = shortcuts_document(run)
    assert kept is not None
    assert {row["verdict"]["verdict"] for row in kept["pairs"] if row["feature"] == 2} == {"core"}
    other = run_of(tmp_path, name="few")
    with pytest.raises(InputError, match="expected overuse or gap"):
        find_shortcuts(other, by="size")


def test_switching_the_cue_s_direction_off_mends_what_it_misled() -> None:
    """Images of other classes that have the frame are told from the planted class again."""
    gains: list[float] = []
    losses: list[float] = []
    for seed in range(3):
        made = watermarked(seed)
        z, labels = made.evaluation.arrays()
        head = made.evaluation.require_head()
        own = labels == PLANTED
        cue = z[own & made.has].mean(0) - z[own & ~made.has].mean(0)
        edit = Edit("off", direction=tuple(cue.tolist()))
        edited = apply_edit(head, edit, setting_of(made.train))
        right = [one(z).argmax(1) == labels for one in (head, edited)]
        for found, rows in ((gains, ~own & made.has), (losses, ~own & ~made.has)):
            before, after = (float(one[rows].double().mean()) for one in right)
            found.append(after - before)
    assert float(np.median(gains)) > 0.2
    assert min(losses) > -0.02

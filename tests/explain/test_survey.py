"""Largest values, ranges, histograms, moments' relations and verdicts, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from penult.explain.survey import BINS, Distributions, Survey
from penult.explain.toplists import TopLists
from penult.features.features import Features
from penult.features.moments import Moments
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces, top_k
from penult.network.head import Head
from penult.report.answers import KINDS, MOST_MISTAKES, Answers
from penult.report.relations import ClassMeans, Relations
from penult.report.rows import HeadRows


def plain(seed: int, n: int = 300, c: int = 4, d: int = 7, levels: int = 0) -> Features:
    """Features in a random order of classes; of a few levels only, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(n, d, generator=generator) - 0.3
    z = (z * levels).round() / levels if levels else z
    labels = torch.randint(c, (n,), generator=generator)
    weight = torch.randn(c, d, generator=generator)
    return Features.of(z.relu(), labels, weight, torch.randn(c, generator=generator))


def ranked(values: Tensor, rows: Tensor, n: int) -> list[int]:
    """The rows with the largest values, of equal ones the first, but not those of the least."""
    order = values[rows].sort(descending=True, stable=True).indices[:n]
    return [int(i) for i in rows[order] if values[i] > values.min()]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(-5, 5), st.integers(0, 2)), min_size=1, max_size=80
    ),
    st.integers(1, 4),
    st.integers(1, 20),
)
def test_lists_hold_the_largest_of_each_group_and_tag(
    rows: list[tuple[int, int, int]], per_tag: int, part: int
) -> None:
    lists = TopLists(4, 2 * per_tag, per_tag)
    groups, values, tags = (np.array(column) for column in zip(*rows, strict=True))
    for start in range(0, len(rows), part):
        span = slice(start, start + part)
        samples = np.arange(len(rows))[span]
        lists.add(groups[span], values[span].astype(np.float32), samples, tags[span])
        assert len(lists.entries(0, per_tag)) <= per_tag, "they may be asked for on the way"
    for group in range(4):
        best = sorted(
            (i for i in range(len(rows)) if groups[i] == group), key=lambda i: (-values[i], i)
        )
        found = [entry.sample for entry in lists.entries(group, per_tag)]
        assert found == best[:per_tag]
        for tag in range(3):
            others = [i for i in best if tags[i] != tag][:per_tag]
            assert [e.sample for e in lists.entries(group, per_tag, without=tag)] == others


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("levels", [0, 3])
def test_the_survey_finds_what_sorting_finds(in_order: bool, levels: int) -> None:
    features = plain(1, n=9000 if in_order else 700, levels=levels)
    z, labels = features.arrays()
    if in_order:
        order = labels.sort(stable=True).indices
        z, labels = z[order], labels[order]
        head = features.require_head()
        features = Features.of(z, labels, head.weight, head.bias)
    subspaces = top_k(torch.rand(4, 7, generator=torch.Generator().manual_seed(2)), [1, 2, 3, 2])
    survey = Survey.of(features, subspaces, 5)
    assert torch.equal(survey.low, z.min(0).values)
    assert torch.equal(survey.high, z.max(0).values)
    everywhere = torch.arange(len(z))
    for j in range(7):
        found = survey.top(j)
        assert [e.sample for e in found] == ranked(z[:, j], everywhere, 5)
        assert [e.value for e in found] == [float(z[e.sample, j]) for e in found]
    for kept, (c, j) in enumerate(zip(subspaces.classes(), subspaces.indices, strict=True)):
        own, others = everywhere[labels == c], everywhere[labels != c]
        assert [e.sample for e in survey.top_of_class(kept)] == ranked(z[:, j], own, 5)
        assert [e.sample for e in survey.top_elsewhere(kept)] == ranked(z[:, j], others, 5)


def test_a_feature_of_one_class_shows_where_else_it_is_largest() -> None:
    z = torch.zeros(400, 1)
    labels = torch.arange(400) % 4
    z[labels == 2] = 5 + torch.rand(100, 1)
    z[3], z[5] = 0.5, 0.25
    features = Features.of(z, labels, torch.ones(4, 1))
    survey = Survey.of(features, Subspaces.of([[], [], [0], []], 1), 6)
    assert [int(labels[e.sample]) for e in survey.top(0)] == [2] * 6
    assert [e.sample for e in survey.top_elsewhere(0)] == [3, 5]


def test_distributions_are_histograms_of_the_classes_shown_and_of_the_rest() -> None:
    features = plain(3, n=2000, c=20)
    z, labels = features.arrays()
    survey = Survey.of(features, Subspaces.of([[0]] * 20, 7), 2)
    means = torch.stack([z[labels == c].mean(0) for c in range(20)])
    found = Distributions.of(features, survey, means, {0, 7, 1999})
    assert sorted(found.samples) == [0, 7, 1999]
    head = features.require_head()
    for number, sample in found.samples.items():
        assert sample.label == labels[number]
        assert sample.predicted == head(z[number : number + 1]).argmax()
    for j in range(7):
        shown = found.classes[j].tolist()
        assert shown == means[:, j].sort(descending=True).indices[: len(shown)].tolist()
        # In float64, as NumPy draws the bins: a value on an edge may fall to either side.
        span = (float(survey.low[j]), float(survey.high[j]))
        for i, c in enumerate([*shown, None]):
            rows = labels == c if c is not None else ~torch.isin(labels, found.classes[j])
            counts, _ = np.histogram(z[rows, j].double().numpy(), BINS, span)
            assert np.abs(found.counts[j, i].numpy() - counts).sum() <= 2
    assert int(found.counts.sum()) == 2000 * 7


def test_relations_name_dead_flat_and_twin_features() -> None:
    generator = torch.Generator().manual_seed(4)
    labels = torch.arange(3000) % 3
    z = torch.rand(3000, 6, generator=generator)
    z[:, 0] += 2.0 * (labels == 1)
    z[:, 1] = 0.0
    z[:, 3] = 3 * z[:, 0] + 0.05 * z[:, 3]
    z[:, 4] = 1 - z[:, 5] + 0.01 * z[:, 4]
    features = Features.of(z, labels, torch.randn(3, 6, generator=generator))
    survey = Survey.of(features, Subspaces.of([[0], [1], [2]], 6), 1)
    found = Relations.of(Moments.of(z, labels, 3), survey)
    assert found.dead.tolist() == [False, True, False, False, False, False]
    assert found.flat.tolist() == [False, False, True, False, True, True]
    assert found.twins.tolist() == [3, -1, -1, 0, 5, 4]
    assert found.correlations[4] < -0.99
    means = torch.stack([z[labels == c].double().mean(0) for c in range(3)])
    whole = z.double().mean(0)
    between = ((means - whole) ** 2).sum(0) / 3
    spread = z.double().var(0, correction=0)
    assert found.share[0] == pytest.approx(float(between[0] / spread[0]), abs=1e-3)
    assert bool(found.share[1].isnan())
    others = torch.stack([z[labels != c].double().mean(0) for c in range(3)])
    torch.testing.assert_close(ClassMeans.of(Moments.of(z, labels, 3)).elsewhere, others)


def test_influence_and_separation_are_weights_times_differences_of_means() -> None:
    features = plain(5, n=500)
    z, labels = features.arrays()
    head = SparseHead.from_dense(
        features.require_head().weight, None, Subspaces.of([[0, 3], [1], [2, 3, 6], [5]], 7)
    )
    found, rows = ClassMeans.of(Moments.of(z, labels, 4)), HeadRows.of(head)
    weight = head.dense_weight().detach().double()
    means = torch.stack([z[labels == c].double().mean(0) for c in range(4)])
    for c, influence in enumerate(found.influence(rows.weight)):
        elsewhere = z[labels != c].double().mean(0)
        torch.testing.assert_close(influence, weight[c] * (means[c] - elsewhere))
    dense = HeadRows.of(features.require_head())
    shifted = Head("head", features.require_head().weight + torch.rand(7), torch.zeros(4))
    torch.testing.assert_close(HeadRows.of(shifted).relative(), dense.relative())
    separation = dict(found.separation(rows, 0, 2))
    assert set(separation) == {0, 2, 3, 6}
    expected = (weight[0] - weight[2]) * (means[0] - means[2])
    for j, moves in separation.items():
        assert moves == pytest.approx(float(expected[j]), rel=1e-9)
    sizes = [abs(moves) for moves in separation.values()]
    assert sizes == sorted(sizes, reverse=True)


def test_verdicts_count_what_a_loop_counts() -> None:
    features = plain(6, n=900)
    z, labels = features.arrays()
    dense = features.require_head()
    sparse = SparseHead.from_dense(dense.weight, dense.bias, top_k(dense.weight.abs(), 2))
    found = Answers.of(features, dense, sparse)
    with torch.no_grad():
        logits = {"dense": dense(z), "sparse": sparse(z)}
    calls = {name: values.argmax(1) for name, values in logits.items()}
    counts = dict.fromkeys(KINDS, 0)
    for y, d, s in zip(labels, calls["dense"], calls["sparse"], strict=True):
        if d != y or s != y:
            counts["only-sparse" if d == y else "only-dense" if s == y else "both"] += 1
    assert found.n_of_kind == counts
    accuracies = found.accuracies()
    for i, name in enumerate(("dense", "sparse")):
        for c in range(4):
            own = calls[name][labels == c]
            assert accuracies[i][c] == pytest.approx(float((own == c).double().mean()))
    confusions = found.confusions()
    for c in range(4):
        for d in set(range(4)) - {c}:
            to = [int(((labels == c) & (calls[n] == d)).sum()) for n in ("dense", "sparse")]
            back = [int(((labels == d) & (calls[n] == c)).sum()) for n in ("dense", "sparse")]
            assert confusions.get(c, {}).get(d, ([0, 0], [0, 0])) == (to, back)
    agreement = float((calls["dense"] == calls["sparse"]).double().mean())
    assert found.agreement == pytest.approx(agreement)
    means = torch.stack([z[labels == c].double().mean(0) for c in range(4)])
    class_means = ClassMeans.of(Moments.of(z, labels, 4))
    rows_of = HeadRows.of(dense)
    weight = dense.weight.double()
    assert found.taken
    for (c, d), taken in found.taken.items():
        rows = (labels == c) & (calls["dense"] == d)
        torch.testing.assert_close(taken, z[rows].double().mean(0))
        moved = (weight[c] - weight[d]) * (taken - means[c])
        for j, moves in class_means.misleading(rows_of, c, d, taken):
            assert moves == pytest.approx(float(moved[j]), abs=1e-6)
    for mistake in found.mistakes:
        n = mistake.sample.number
        assert torch.equal(mistake.features, z[n])
        for reason in mistake.reasons(dense, sparse):
            values = logits[reason["head"]][n]
            gap = float(values[reason["for"]] - values[reason["against"]])
            assert reason["gap"] == pytest.approx(gap, abs=1e-5)
            total = sum(row[2] for row in reason["features"]) + reason["rest"] + reason["bias"]
            assert total == pytest.approx(reason["gap"], abs=1e-9)
            assert reason["for"] == calls[reason["head"]][n]
            wrong = reason["for"] != labels[n]
            others = {int(calls[name][n]) for name in calls}
            assert reason["against"] in ({int(labels[n])} if wrong else others - {reason["for"]})
    for kind in KINDS:
        gaps = [
            next(r["gap"] for r in m.reasons(dense, sparse) if r["for"] != m.sample.label)
            for m in found.mistakes
            if m.kind == kind
        ]
        assert gaps == sorted(gaps, reverse=True)
        assert len(gaps) == min(MOST_MISTAKES[kind], counts[kind])


def test_the_mistakes_shown_are_the_surest() -> None:
    labels = torch.zeros(300, dtype=torch.int64)
    z = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    features = Features.of(z, labels, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    dense = features.require_head()
    sparse = SparseHead.from_dense(dense.weight, dense.bias, Subspaces.of([[0], [1]], 2))
    found = Answers.of(features, dense, sparse)
    gaps = (z[:, 1] - z[:, 0]).sort(descending=True, stable=True)
    assert [m.sample.number for m in found.mistakes] == gaps.indices[:100].tolist()
    assert {m.kind for m in found.mistakes} == {"both"}

from __future__ import annotations

import ctypes
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from penult.errors import InputError
from penult.explain import packing
from penult.explain.packing import fill, normal, pack, prove
from penult.explain.reasons import Box, Reason, reason_sizes, sufficient_reason
from penult.features.features import Features
from penult.heads.path import fit_path
from penult.heads.plan import Plan
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces, top_k
from penult.network.head import Head, head_of

Problem = tuple[Head, Tensor, Box]


def whole_numbers(seed: int, n_features: int, n_classes: int) -> Problem:
    """Weights, features and box are small whole numbers: every lead is exact, ties are common."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=generator).float()

    low = draw(-2, 1, n_features)
    high = low + draw(0, 4, n_features)
    z = draw(-2, 4, n_features)
    head = head_of(draw(-3, 3, n_classes, n_features), draw(-9, 9, n_classes))
    return head, z, Box(low, high)


def real_numbers(seed: int, n_samples: int, n_features: int, n_classes: int) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n_samples, n_features, generator=generator).relu()
    weight = torch.randn(n_classes, n_features, generator=generator)
    head = head_of(weight, torch.randn(n_classes, generator=generator))
    return head, z, Box(z.amin(0), z.amax(0))


def guarantees(head: Head, z: Tensor, box: Box, held: tuple[int, ...], label: int) -> bool:
    """By all corners of the box: a linear lead is least at one of them."""
    box = box.around(z)
    ends = [
        [float(z[j])] if j in held else [float(box.low[j]), float(box.high[j])]
        for j in range(len(z))
    ]
    corners = torch.tensor(list(itertools.product(*ends)), dtype=torch.float64)
    logits = head(corners)
    others = torch.arange(head.n_classes) != label
    return bool((logits[:, label, None] > logits[:, others]).all())


def worst_lead(head: Any, z: Tensor, box: Box, held: tuple[int, ...], label: int) -> float:
    """Loop over rivals and features; no array arithmetic."""
    weight = head.dense_weight() if isinstance(head, SparseHead) else head.weight
    weight, bias, box = weight.detach().double(), head.bias.detach().double(), box.around(z)
    leads = [float("inf")]
    for c in range(len(bias)):
        if c != label:
            lead = float(bias[label] - bias[c])
            for j in range(len(z)):
                d = float(weight[label, j] - weight[c, j])
                ends = [float(z[j])] if j in held else [float(box.low[j]), float(box.high[j])]
                lead += min(d * end for end in ends)
            leads.append(lead)
    return min(leads)


def smallest(head: Head, z: Tensor, box: Box, label: int) -> int | None:
    for size in range(len(z) + 1):
        for held in itertools.combinations(range(len(z)), size):
            if worst_lead(head, z, box, held, label) > 0:
                return size
    return None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 5))
def test_no_smaller_set_of_all_sets_suffices(seed: int, n_features: int, n_classes: int) -> None:
    head, z, box = whole_numbers(seed, n_features, n_classes)
    reason = sufficient_reason(head, z, box)
    size = smallest(head, z, box, reason.predicted)
    assert reason.predicted == int(head(z[None].double()).argmax())
    assert reason.exact
    assert reason.bound == len(reason.features)
    if size is None:
        assert not reason.valid
        assert sorted(reason.features) == list(range(n_features))
    else:
        assert reason.valid
        assert len(reason.features) == size
        assert guarantees(head, z, box, reason.features, reason.predicted)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(2, 6))
def test_without_proof_no_feature_is_superfluous_and_the_bound_holds(
    seed: int, n_features: int, n_classes: int
) -> None:
    head, z, box = whole_numbers(seed, n_features, n_classes)
    reason = sufficient_reason(head, z, box, exact=False)
    best = sufficient_reason(head, z, box)
    assert reason.bound <= len(best.features) <= len(reason.features)
    assert reason.exact == (reason.bound == len(reason.features))
    if reason.valid:
        assert worst_lead(head, z, box, reason.features, reason.predicted) > 0
        for j in reason.features:
            fewer = tuple(i for i in reason.features if i != j)
            assert worst_lead(head, z, box, fewer, reason.predicted) <= 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_no_completion_in_the_box_changes_the_head_s_own_prediction(
    seed: int, exact: bool, sparse: bool
) -> None:
    dense, samples, box = real_numbers(seed, 30, 24, 6)
    z, generator = samples[0], torch.Generator().manual_seed(seed)
    head: Head | SparseHead = dense
    if sparse:
        subspaces = top_k(dense.weight.abs(), 4)
        head = SparseHead.from_dense(dense.weight, dense.bias, subspaces)
    reason = sufficient_reason(head, z, box, exact=exact)
    assert reason.valid
    low, high = box.low.float(), box.high.float()
    inside = low + (high - low) * torch.rand(500, 24, generator=generator)
    corners = torch.where(torch.rand(500, 24, generator=generator) < 0.5, low, high)
    completions = torch.cat([inside.clamp(low, high), corners, reason.worst[None]])
    held = list(reason.features)
    completions[:, held] = z[held]
    logits = head(completions)
    assert (logits.argmax(1) == reason.predicted).all()
    expected = worst_lead(head, z, box, reason.features, reason.predicted)
    assert reason.margin == pytest.approx(expected, abs=1e-9)
    assert reason.rival is not None
    lead = logits[-1, reason.predicted] - logits[-1, reason.rival]
    assert float(lead.detach()) == pytest.approx(reason.margin, abs=1e-4)
    assert torch.equal(reason.worst[held], z[held])


def test_two_features_alone_decide() -> None:
    """Features 3 and 7 of 20 outweigh all the rest together; 7 counts more."""
    generator = torch.Generator().manual_seed(0)
    weight = 0.1 * torch.randn(4, 20, generator=generator)
    weight[:, 3], weight[:, 7] = torch.tensor([[9.0, 0, 0, 0], [10.0, 0, 0, 0]])
    bias = torch.tensor([0.0, 14, 14, 14])
    z = torch.ones(20)
    box = Box(torch.zeros(20), torch.ones(20))
    for exact in (True, False):
        reason = sufficient_reason(head_of(weight, bias), z, box, exact=exact)
        assert reason.features == (7, 3)
        assert (reason.predicted, reason.valid, reason.exact, reason.bound) == (0, True, True, 2)


def test_features_that_no_class_reads_are_never_held() -> None:
    subspaces = Subspaces.of([[1, 4], [4, 2], []], n_features=9)
    head = SparseHead(subspaces, torch.tensor([2.0, 1, 2, 3]), torch.tensor([0.0, 0.5, 0]))
    z = torch.full((9,), 2.0)
    reason = sufficient_reason(head, z, Box(torch.zeros(9), torch.full((9,), 4.0)))
    assert reason.valid
    assert set(reason.features) <= {1, 2, 4}
    sizes = reason_sizes(head, z[None], Box(torch.zeros(9), torch.full((9,), 4.0)))
    assert sizes.relevant.tolist() == [3]
    hopeless = SparseHead(subspaces, head.values, torch.tensor([-30.0, 0.5, 2]))
    sizes = reason_sizes(hopeless, z[None], Box(torch.zeros(9), torch.full((9,), 4.0)))
    assert sizes.relevant.tolist() == [2]  # feature 1 speaks for class 0 only, which cannot win


def test_a_tie_is_guaranteed_by_nothing() -> None:
    head = head_of(torch.tensor([[1.0, 0], [0, 1], [0, 0]]))
    box = Box(torch.zeros(2), torch.ones(2))
    reason = sufficient_reason(head, torch.tensor([0.5, 0.5]), box)
    assert not reason.valid
    assert sorted(reason.features) == [0, 1]
    assert reason.margin == 0
    assert str(reason) == "nothing guarantees class 0: its logit is tied with that of class 1"
    sizes = reason_sizes(head, torch.tensor([[0.5, 0.5], [1, 0]]), box)
    assert sizes.valid.tolist() == [False, True]
    assert sizes.sizes.tolist() == sizes.bounds.tolist() == [2, 2]
    near = torch.tensor([0.5 + 2**-24, 0.5])  # what float32 sums of these features could lose
    assert not sufficient_reason(head, near, box).valid
    assert sufficient_reason(head, torch.tensor([0.501, 0.5]), box).valid


def test_outside_of_the_box_the_box_is_widened() -> None:
    head = head_of(torch.tensor([[1.0, 1], [0, 0]]), torch.tensor([0.0, 4.0]))
    box = Box(torch.zeros(2), torch.ones(2))
    reason = sufficient_reason(head, torch.tensor([5.0, 0.5]), box)
    assert reason.features == (0,)
    assert reason.margin == pytest.approx(1)
    assert reason.worst.tolist() == [5, 0]
    wide = box.around(torch.tensor([5.0, -1]))
    assert (wide.low.tolist(), wide.high.tolist()) == ([0, -1], [5, 1])


def test_one_class_needs_no_feature() -> None:
    head = Head("fc", torch.ones(1, 3), torch.zeros(1))
    reason = sufficient_reason(head, torch.ones(3), Box(torch.zeros(3), torch.ones(3)))
    assert (reason.features, reason.rival, reason.valid, reason.exact) == ((), None, True, True)
    assert json.loads(json.dumps(reason.document()))["margin"] is None
    assert str(reason) == "0 of 3 features guarantee class 0"


def test_features_that_never_move_need_not_be_held() -> None:
    head, samples, _ = real_numbers(1, 1, 12, 5)
    reason = sufficient_reason(head, samples[0], Box(samples[0], samples[0]))
    assert reason.features == ()
    assert torch.equal(reason.worst, samples[0])


@pytest.mark.parametrize("exact", [True, False])
def test_sizes_of_many_are_those_of_each(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penult.explain.reasons._CHUNK", 1500)  # 12 samples at once
    head, z, box = real_numbers(2, 30, 25, 5)
    sizes = reason_sizes(head, z, box, exact=exact)
    each = [sufficient_reason(head, row, box, exact=exact) for row in z]
    assert sizes.sizes.tolist() == [len(reason.features) for reason in each]
    assert sizes.bounds.tolist() == [reason.bound for reason in each]
    assert sizes.predicted.tolist() == [reason.predicted for reason in each]
    assert sizes.exact == sum(reason.exact for reason in each) / 30
    assert sizes.valid.all()
    assert exact == (sizes.exact == 1)


def test_no_samples_have_no_sizes() -> None:
    head, z, box = real_numbers(3, 5, 8, 3)
    sizes = reason_sizes(head, z[:0], box)
    assert len(sizes.sizes) == 0
    assert sizes.exact == 1


def random_loads(seed: int, n_features: int, n_rivals: int, share: float) -> Any:
    """Loads of one problem; a rival allows `share` of what all features together would lose."""
    random = np.random.default_rng(seed)
    gains = random.exponential(size=(1, n_features, n_rivals))
    gains[random.random(gains.shape) < 0.2] = 0
    return normal(gains, share * gains.sum(1) + 1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 11), st.integers(1, 4), st.floats(0.05, 1.1))
def test_packing_by_search_by_programme_and_by_all_choices(
    seed: int, n_features: int, n_rivals: int, share: float
) -> None:
    loads = random_loads(seed, n_features, n_rivals, share)
    choices = np.array(list(itertools.product([False, True], repeat=n_features)))
    most = choices[(choices @ loads[0] <= 1).all(1)].sum(1).max()
    packed = pack(loads)
    assert packed.free[0].sum() <= most <= packed.most[0]
    start, far = np.zeros(n_features, bool), n_features
    for seconds, work in ((60.0, packing._WORK), (60.0, 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packing, "_WORK", work)
            free, bound = prove(loads[0], start, far, packed.weights[0], seconds)
        assert (loads[0][free].sum(0) <= 1 + 1e-12).all()
        assert free.sum() == bound == most


def test_bounds_are_those_of_linear_programming() -> None:
    loads = np.concatenate([random_loads(seed, 40, 6, 0.5) for seed in range(30)])
    packed = pack(loads)
    bounds = []
    for problem in loads:
        allowed = problem[problem[:, 0] < packing.BARRED]
        result = linprog(-np.ones(len(allowed)), A_ub=allowed.T, b_ub=np.ones(6), bounds=(0, 1))
        bounds.append(int(np.floor(-result.fun + 1e-7)))
    above = packed.most - np.array(bounds)
    assert (above >= 0).all()
    assert above.sum() <= 2
    assert (packed.free.sum(1) >= np.array(bounds) - 2).all()


def test_what_is_left_of_the_time_is_bounded() -> None:
    """No time: the start comes back with its bound; a little: never worse, never wrong."""
    loads = random_loads(4, 120, 40, 0.4)
    packed = pack(loads)
    free, most = prove(loads[0], packed.free[0], int(packed.most[0]), packed.weights[0], 0.0)
    assert (free == packed.free[0]).all()
    assert most == packed.most[0] > free.sum()
    later, bound = prove(loads[0], free, most, packed.weights[0], 0.5)
    assert free.sum() <= later.sum() <= bound <= most
    assert (loads[0][later].sum(0) <= 1).all()


def test_choices_that_the_solver_lets_slip_are_repaired() -> None:
    loads = random_loads(5, 40, 6, 0.5)
    free = packing._repaired(loads[0], np.ones(40, bool))
    assert (loads[0][free].sum(0) <= 1).all()
    assert all((loads[0][free].sum(0) + loads[0][j] > 1).any() for j in np.flatnonzero(~free))


def test_filling_one_by_one_is_filling_together() -> None:
    loads = np.concatenate([random_loads(seed, 30, 5, 0.4) for seed in range(9)])
    order = np.random.default_rng(0).permuted(np.tile(np.arange(30), (9, 1)), axis=1)
    together = fill(loads, order)
    alone = np.concatenate([fill(loads[i : i + 1], order[i : i + 1]) for i in range(9)])
    assert (together == alone).all()
    assert (fill(loads, order, together) == together).all()


def test_a_reason_is_shown_and_written() -> None:
    head, z, box = real_numbers(6, 20, 15, 3)
    names = ["cat", "<dog>", "fox"]
    reason = sufficient_reason(head, z[0], box, class_names=names)
    document = json.loads(json.dumps(reason.document()))
    assert document["features"] == list(reason.features)
    assert document["margin"] == reason.margin
    assert document["worst"] == reason.worst.tolist()
    assert document["bound"] == reason.bound == len(reason.features)
    shown = reason._repr_html_()
    assert f"{len(reason.features)} of 15 features guarantee" in shown
    assert "<dog>" not in shown
    open_end = Reason(1, (3,), 9, True, False, 0, 0, 0.5, z[0], ("cat", "<dog>", "fox"))
    assert str(open_end) == (
        "1 of 9 features guarantees <dog> (at least 0 are needed); cat comes nearest, 0.5 below"
    )


def test_box_of_features_is_their_range() -> None:
    features = Features.of(torch.tensor([[1.0, -2], [0, 5], [3, 1]]), torch.tensor([0, 1, 0]))
    box = Box.of(features)
    assert (box.low.tolist(), box.high.tolist()) == ([0, -2], [3, 5])
    assert box.low.dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h, z, b: sufficient_reason(h, z[0, :4], b), r"\(n_features,\) with n_features = 6"),
        (lambda h, z, b: sufficient_reason(h, z, b), r"found torch.float32 of shape \(3, 6\)"),
        (lambda h, z, b: reason_sizes(h, z[0], b), r"shape \(n_samples, n_features\) with"),
        (lambda h, z, b: reason_sizes(h, z.long(), b), "floating-point features"),
        (lambda h, z, b: reason_sizes(h, z / 0, b), "features hold NaN or infinite values"),
        (
            lambda h, z, b: reason_sizes(h, z, Box(b.low[:4], b.high[:4])),
            "n_features is 6 in the head and 4 in the box",
        ),
        (lambda h, z, b: Box(b.high + 1, b.low), "expected low ≤ high for every feature, found"),
        (lambda h, z, b: Box(b.low, b.high / 0), "the box's high end is NaN or infinite"),
        (lambda h, z, b: Box(b.low, b.high[:3]), r"found \(6,\) and \(3,\)"),
        (
            lambda h, z, b: sufficient_reason(h, z[0], b, class_names=["a"]),
            "1 class names for 4 classes",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    call: Callable[[Head, Tensor, Box], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call(*real_numbers(7, 3, 6, 4))


@pytest.mark.real
def test_resnet20_on_cifar10(shared_data: Path) -> None:
    folder = shared_data / "features"
    train = Features.open(folder / "resnet20_train.safetensors")
    test = Features.open(folder / "resnet20_eval.safetensors")
    box, z = Box.of(train), test.arrays()[0][:30]
    dense = test.require_head()
    keep = torch.arange(train.n_samples) < 5000
    sparse = fit_path(train.subset(keep), plan=Plan(ks=(5,)))[5]
    medians = []
    for head in (dense, sparse):
        sizes = reason_sizes(head, z, box)
        assert sizes.exact == 1
        assert torch.equal(sizes.predicted, head(z).argmax(1))
        greedy = reason_sizes(head, z, box, exact=False)
        assert (greedy.bounds <= sizes.sizes).all()
        assert (sizes.sizes <= greedy.sizes).all()
        medians.append(float(sizes.sizes.double().median()))
        for i in (0, 1, 2):
            reason = sufficient_reason(head, z[i], box)
            lead = worst_lead(head, z[i], box, reason.features, reason.predicted)
            assert lead > 0
            assert len(reason.features) == int(sizes.sizes[i])
            for j in reason.features:
                fewer = tuple(k for k in reason.features if k != j)
                assert worst_lead(head, z[i], box, fewer, reason.predicted) <= 0
    assert medians[0] > 1.4 * medians[1]


@pytest.mark.real
def test_the_solver_writes_nothing_to_standard_output(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """This image makes HiGHS write a line past its own switch; `--json` must not be spoilt."""

    def unfinished(*arguments: object) -> None:
        raise packing.Unfinished

    folder = shared_data / "features"
    box = Box.of(Features.open(folder / "resnet20_train.safetensors"))
    features = Features.open(folder / "resnet20_eval.safetensors")
    z = features.arrays()[0][8646:8647]
    by_search = reason_sizes(features.require_head(), z, box)
    monkeypatch.setattr(packing, "_search", unfinished)
    by_programme = reason_sizes(features.require_head(), z, box, seconds_each=10)
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == ""
    assert torch.equal(by_programme.sizes, by_search.sizes)

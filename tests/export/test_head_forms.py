"""Forms of a head: each gives the logits of the definition, in torch and in onnxruntime."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from penult.export.choose_form import choose_form, fastest
from penult.export.head_forms import EXPLAINED, forms_of, head_layer
from penult.export.onnx_graph import OPSET
from penult.export.shipped_head import ShippedHead
from penult.heads.bounded_head import BoundedHead
from penult.network.head import Head

N_CLASSES, N_FEATURES = 21, 200  # the last block of eight classes is not full
N_BOUNDS = 2


def head(seed: int = 0) -> Head:
    """Classes that read none to four features, and features that none reads."""
    torch.manual_seed(seed)
    weight = torch.zeros(N_CLASSES, N_FEATURES)
    for c in range(N_CLASSES):
        read = torch.randperm(N_FEATURES // 2)[: c % 5]
        weight[c, read] = torch.randn(len(read))
    return Head("", weight, torch.randn(N_CLASSES))


def shipped(bounded: bool = False) -> ShippedHead:
    made = head()
    if bounded:
        directions = torch.zeros(N_BOUNDS, N_FEATURES)
        directions[0, 3], directions[1, 150] = 1, 2  # one that only the bounds read
        bounds, scales = torch.rand(N_BOUNDS), torch.randn(N_CLASSES, N_BOUNDS)
        made = BoundedHead("", made.weight, made.bias, "none", False, directions, bounds, scales)
    return ShippedHead(made, None, {})


def naive(made: Head, z: Tensor) -> np.ndarray:
    """Logits number by number."""
    found = np.zeros((len(z), N_CLASSES))
    for i, row in enumerate(z.double().tolist()):
        for c in range(N_CLASSES):
            found[i, c] = float(made.bias[c])
            for j in range(N_FEATURES):
                found[i, c] += float(made.weight[c, j]) * row[j]
            if isinstance(made, BoundedHead):
                for m in range(N_BOUNDS):
                    along = sum(float(made.directions[m, j]) * row[j] for j in range(N_FEATURES))
                    over = max(0.0, along - float(made.bounds[m]))
                    found[i, c] -= float(made.scales[c, m]) * over
    return found


@pytest.mark.parametrize("drop", [False, True], ids=["all features", "those read"])
@pytest.mark.parametrize("bounded", [False, True], ids=["linear", "with caps"])
@pytest.mark.parametrize("form", EXPLAINED)
def test_a_form_gives_the_logits_of_the_definition(form: str, bounded: bool, drop: bool) -> None:
    one = shipped(bounded)
    assert form in forms_of(one, drop=drop) or (form == "read" and drop)
    layer = head_layer(one, form, drop=drop)
    z = torch.randn(5, N_FEATURES)
    expected = naive(one.head, z)
    assert np.abs(layer(z).numpy() - expected).max() < 1e-5
    # The same at every position of tokens, and of maps whose channels come last.
    tokens = z[:, None].expand(5, 3, N_FEATURES)
    assert np.abs(layer(tokens).numpy() - expected[:, None]).max() < 1e-5
    assert layer(tokens[:, None]).shape == (5, 1, 3, N_CLASSES)
    assert layer(z.double()).dtype == torch.float32


@pytest.mark.parametrize("piece", [1, 12, 30])
def test_blocks_in_pieces_give_the_logits_of_the_definition(
    monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    whole = head_layer(shipped(), "blocks")
    monkeypatch.setattr("penult.export.head_forms.PIECE", piece)
    one = shipped()
    layer = head_layer(one, "blocks")
    assert len(list(layer.parameters())) > len(list(whole.parameters())) == 2  # with the bias
    z = torch.randn(5, N_FEATURES)
    assert np.abs(layer(z).numpy() - naive(one.head, z)).max() < 1e-5
    assert sum(p.numel() for p in layer.parameters()) == sum(p.numel() for p in whole.parameters())


def test_caps_of_a_network_that_averages_positions_hold_for_the_mean() -> None:
    one = shipped(bounded=True)
    one = ShippedHead(replace(one.head, reduce="mean"), None, {})
    tokens = torch.randn(5, 4, N_FEATURES)
    found = head_layer(one, "dense")(tokens)
    assert found.shape == (5, 4, N_CLASSES)
    assert np.abs(found.mean(1).numpy() - naive(one.head, tokens.mean(1))).max() < 1e-5


def test_forms_that_would_hold_half_of_the_numbers_are_not_offered() -> None:
    dense = ShippedHead(Head("", torch.randn(8, 16), torch.zeros(8)), None, {})
    assert forms_of(dense) == ["dense"]
    nothing = ShippedHead(Head("", torch.zeros(8, 16), torch.zeros(8)), None, {})
    assert forms_of(nothing) == ["dense"]
    # Each class reads one feature of its own: little for a class, all for a block.
    scattered = ShippedHead(Head("", torch.eye(8), torch.zeros(8)), None, {})
    assert forms_of(scattered) == ["dense", "gather", "rows"]


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="the extra `export` is not installed",
)
def test_every_form_is_measured_in_onnxruntime_and_gives_the_logits() -> None:
    from penult.export.choose_form import _in_onnxruntime

    one = shipped()
    z = torch.randn(3, N_FEATURES)
    layers = {form: head_layer(one, form) for form in EXPLAINED}
    for form, run in _in_onnxruntime(layers, OPSET).items():
        given: Any = run(z)
        logits = given[0]
        assert np.abs(logits - naive(one.head, z)).max() < 1e-5, form
    taken, about = choose_form(one, "onnxruntime", (1, 4), opset=OPSET)
    assert about["form"] == taken
    assert [row["batch_size"] for row in about["measured"]] == [1, 4]
    assert set(about["measured"][0]["forms"]) == set(EXPLAINED)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"dense": 10, "a": 5, "b": 4}, {"dense": 10, "a": 9, "b": 11}], "a"),
        ([{"dense": 10, "a": 5, "b": 4}, {"dense": 10, "a": 9, "b": 10.4}], "b"),
        ([{"dense": 10, "a": 9.9}], "dense"),
        ([{"dense": 10, "a": 1}, {"dense": 10, "a": 10.6}], "dense"),
    ],
    ids=["slower somewhere", "as fast somewhere", "hardly faster", "fast once, slow once"],
)
def test_the_fastest_form_is_nowhere_slower(rows: list[dict[str, float]], expected: str) -> None:
    assert fastest(rows) == expected

"""Pieces, read one by one, give what the features give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from penult.features import features as features_module
from penult.features import shards
from penult.features.features import Features
from penult.features.saving import save_features
from penult.features.shards import Block


def made(n: int, multi_label: bool = False) -> Features:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, 4, generator=generator)
    labels = torch.arange(n) % 3
    if multi_label:
        labels = torch.rand(n, 3, generator=generator) < 0.4
    return Features.of(z, labels, torch.randn(3, 4, generator=generator), class_names=list("abc"))


def blocks(features: Features) -> list[Block]:
    return [block for piece in features.pieces() for block in piece.blocks()]


def same(features: Features, found: list[Block]) -> None:
    expected = list(features.blocks())
    assert [len(b.labels) for b in found] == [len(b.labels) for b in expected]
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a.features, b.features)
        assert torch.equal(a.labels, b.labels)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("in_memory", [False, True])
def test_pieces_have_the_blocks_of_the_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool, multi_label: bool
) -> None:
    monkeypatch.setattr(shards.read_shard, "__defaults__", (10,))
    monkeypatch.setattr(features_module, "PIECE_ROWS", 20)
    whole = made(57, multi_label)
    if not in_memory:
        save_features(tmp_path / "f.safetensors", whole)
        whole = Features.open(tmp_path / "f.safetensors")
        assert [(piece.first, piece.stop) for piece in whole.pieces()] == [
            (0, 20),
            (20, 40),
            (40, 57),
        ]
    same(whole, blocks(whole))
    keep = torch.arange(57) % 3 != 1
    keep[20:40] = False
    some = whole.subset(keep)
    same(some, blocks(some))
    again = some.subset(torch.arange(int(keep.sum())) % 2 == 0)
    same(again, blocks(again))
    assert sum(piece.n_samples for piece in again.pieces()) == again.n_samples
    if not in_memory:
        assert len(again.pieces()) == 2, "a piece without samples is not read"


def test_classes_in_another_order_are_kept_so() -> None:
    reference, other = made(9), made(9)
    other.class_names = ("c", "a", "b")
    other.head = None
    view = other.matched(reference)
    same(view, blocks(view))

"""Heads that workers fit are those that one process fits."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cluster_work import contents
from command import penult
from penult.cluster.fitting import ClusterReader, Crew, SpreadSamples, segmented
from penult.cluster.holder import Held, Holder, Segment, surveyed
from penult.cluster.session import Place, connected
from penult.errors import InputError
from penult.features.features import Features
from penult.features.saving import save_features
from penult.heads.path import fit_path
from penult.heads.plan import Plan
from penult.heads.reading import ReadHere, Together
from penult.heads.refit.loss import Support, divergence, match
from penult.heads.samples import MEMORY_LIMIT, Samples
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import top_k


def features(n: int = 900, multi_label: bool = False, seed: int = 0) -> Features:
    """Of planted classes."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 12, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(n) % 4
    z = (torch.randn(n, 12, generator=generator) + weight[labels]).relu()
    given = torch.nn.functional.one_hot(labels, 4) > 0 if multi_label else labels
    if multi_label:
        given[::5] = True
    return Features.of(z, given, weight, torch.zeros(4), class_names=list("abcd"))


class Here:
    """Ray's functions, as far as a crew calls them, in this process."""

    class exceptions:
        RayTaskError = RuntimeError

    put = get = staticmethod(lambda given: given)


class HeldHere:
    """A worker in this process."""

    def __init__(self) -> None:
        self.holder = Holder()
        self.each = self

    def remote(self, held: Held, numbers: Sequence[int], task: Any) -> list[Any]:
        return self.holder.each(held, numbers, task)


def crew(parts: Sequence[tuple[Features, bool]], n_workers: int, labels: bool, memory: int) -> Crew:
    head = parts[0][0].require_head()
    pieces = [(piece, counts) for part, counts in parts for piece in part.pieces()]
    segments = [Segment(own, head) for own in segmented(pieces)]
    held = Held("k", segments, labels, memory, {})
    return Crew(Here, [HeldHere() for _ in range(n_workers)], held)


@pytest.fixture
def many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Features]:
    """Features in files of several pieces each, the second without labels that count."""
    monkeypatch.setattr("penult.features.features.PIECE_ROWS", 100)
    monkeypatch.setattr("penult.features.shards.read_shard.__defaults__", (100,))
    found = []
    for seed in (0, 1):
        path = tmp_path / f"{seed}.safetensors"
        save_features(path, features(seed=seed))
        found.append(Features.open(path))
    return found


def drawn(samples: Samples, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features, targets and labels of some samples."""
    tiles = samples.taken(chosen)
    targets = torch.cat([samples.targets(tile) for tile in tiles], 1)
    features = torch.cat([tile.features for tile in tiles], 1)
    return features, targets, torch.cat([tile.labels for tile in tiles])


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("memory", [0, MEMORY_LIMIT])
def test_passes_of_workers_are_those_of_one_process(
    many_pieces: list[Features], labels: bool, memory: int
) -> None:
    first, also = many_pieces
    head = first.require_head()
    keep = torch.arange(first.n_samples) % 7 != 0
    part = first.subset(keep)
    blocks = Together(part, [also])
    alone = Samples(blocks, head.weight, head.bias, labels=labels, memory_limit=memory)
    results: list[Any] = []
    for n_workers in (1, 2, 5):
        workers = crew([(part, True), (also, False)], n_workers, labels, memory)
        assert len(workers.held.segments) == 18
        spread = SpreadSamples(workers, blocks)
        assert spread.keeps_targets == alone.keeps_targets
        for name in ("mean", "std", "class_mass"):
            assert torch.allclose(getattr(spread, name), getattr(alone, name), rtol=1e-12)
        chosen = torch.tensor([0, 1, 99, 100, 500, 1500, 1671])
        for expected, found in zip(drawn(alone, chosen), drawn(spread, chosen), strict=True):
            assert torch.equal(expected, found)
        support = Support(top_k(head.weight.abs(), 3), head.weight.device)
        start = SparseHead.from_dense(head.weight, head.bias, support.subspaces)
        given = (start.values.detach(), start.bias.detach())
        losses = []
        for one in (alone, spread):
            matched = None if one.keeps_targets else match(one, support)
            losses.append(divergence(one, support, *given, matched))
        for a, b in zip(*losses, strict=True):
            assert torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-9, atol=1e-11)
        results.append(losses[1])
    for other in results[1:]:
        assert other[0] == results[0][0], "sums do not depend on the number of workers"
        assert torch.equal(other[1], results[0][1])


def test_a_part_of_samples_that_workers_hold_is_here(many_pieces: list[Features]) -> None:
    first, _ = many_pieces
    spread = SpreadSamples(crew([(first, True)], 2, False, MEMORY_LIMIT), Together(first, []))
    part = spread.part(50)
    assert part.n_samples == 50
    assert part.total(lambda samples: (torch.tensor(samples.n_samples),)) == (torch.tensor(50),)
    (found,) = spread.total(lambda samples: (torch.tensor(samples.n_samples),))
    assert int(found) == first.n_samples


@pytest.mark.parametrize("multi_label", [False, True])
def test_sums_and_counts_of_workers_are_those_of_one_process(multi_label: bool) -> None:
    given = features(500, multi_label)
    head = given.require_head()
    reader = object.__new__(ClusterReader)
    workers = crew([(given, True)], 2, False, 0)
    reader.hold = lambda *_: workers  # type: ignore[method-assign]
    here, there = ReadHere(), reader
    sparse = SparseHead.from_dense(head.weight, head.bias, top_k(head.weight.abs(), 2))
    for a, b in zip(
        here.counts(head, [sparse], given), there.counts(head, [sparse], given), strict=True
    ):
        assert (a.lost, a.won, a.n_agree, a.squares) == (b.lost, b.won, b.n_agree, b.squares)
    one = here.begin(given, [], lambda n=1: None)
    two = there.begin(given, [], lambda n=1: None)
    assert torch.allclose(one.moments().products, two.moments().products, rtol=1e-12)
    sums = [reading.evidence((1, 3), 0).top_counts.counts for reading in (one, two)]
    assert torch.equal(*sums)


def test_segments_are_even_and_few() -> None:
    given = features(100)
    (piece,) = given.pieces()
    sizes = [len(one) for one in segmented([(piece, True)] * 640)]
    assert sizes == [10] * 64
    assert len(segmented([(piece, True)] * 3)) == 3


def test_features_that_change_meanwhile_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_features(path, features(50))
    given = Features.open(path)
    workers = crew([(given, True)], 1, False, 0)
    held = Held("k", workers.held.segments, False, 0, {str(path): (path.stat().st_size, 1)})
    with pytest.raises(InputError, match=r"a worker on .*f.safetensors changed while it was read"):
        Holder().each(held, [0], surveyed)
    with pytest.raises(InputError, match=r"gone.safetensors cannot be read \(No such file"):
        Holder().each(
            Held("k", [], False, 0, {str(tmp_path / "gone.safetensors"): (1, 1)}), [], print
        )


def values(folder: Path) -> dict[str, Tensor]:
    return {
        path.name: SparseHead.load(path).values.detach()
        for path in sorted(folder.rglob("*k0*.safetensors"))
    }


@pytest.mark.slow
def test_a_run_gets_the_heads_that_one_process_fits(tmp_path: Path, two_workers: str) -> None:
    save_features(tmp_path / "train.safetensors", features(600))
    run, other = str(tmp_path / "one"), str(tmp_path / "two")
    assert penult("analyze", str(tmp_path / "train.safetensors"), "--out", run) == 0
    shutil.copytree(run, other)
    assert penult("fit", run, "-k", "4,7") == 0
    assert penult("fit", other, "-k", "4,7", "--cluster", two_workers) == 0
    expected, found = values(tmp_path / "one"), values(tmp_path / "two")
    assert expected.keys() == found.keys()
    assert any("k004" in name for name in found)
    for name, value in expected.items():
        assert torch.allclose(value, found[name], rtol=1e-4, atol=1e-5), name
    assert contents(tmp_path / "one").keys() == contents(tmp_path / "two").keys()
    rows = [json.loads((tmp_path / n / "summary.json").read_text())["path"] for n in ("one", "two")]
    for a, b in zip(*rows, strict=True):
        assert (a["k"], a["accuracy"], a["counts"]["lost"]) == (
            *(b["k"], b["accuracy"], b["counts"]["lost"]),
        )


@pytest.mark.slow
def test_a_worker_that_dies_is_begun_anew(tmp_path: Path, two_workers: str) -> None:
    given = features(600)
    plan = Plan((2,))
    with connected(Place(two_workers)) as resources:
        reader = ClusterReader(resources, MEMORY_LIMIT, None)
        workers = reader.hold(
            [(piece, True) for piece in given.pieces()], given.require_head(), False
        )
        order = tmp_path / "order"
        order.touch()

        def die(samples: Any, segment: Segment) -> int:
            if order.exists():
                order.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            return segment.n_samples

        assert workers.each(die) == [600]
        assert not order.exists()
        found = fit_path(given, None, plan, reader=reader)
    expected = fit_path(given, None, plan)
    assert torch.equal(found[2].indices, expected[2].indices)
    assert torch.allclose(found[2].values, expected[2].values, rtol=1e-5)

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from penult.errors import InputError
from penult.features.features import Features
from penult.heads.sparse_head import SparseHead, accuracies
from penult.heads.subspaces import Subspaces


def random_head(seed: int, sizes: list[int]) -> tuple[SparseHead, Tensor, Tensor]:
    n_features = 7
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(len(sizes), n_features, generator=generator, dtype=torch.float64)
    bias = torch.randn(len(sizes), generator=generator, dtype=torch.float64)
    kept = [torch.randperm(n_features, generator=generator)[:k].tolist() for k in sizes]
    return SparseHead.from_dense(weight, bias, Subspaces.of(kept, n_features)), weight, bias


def naive_logits(head: SparseHead, weight: Tensor, bias: Tensor, z: Tensor) -> Tensor:
    logits = torch.zeros(len(z), len(weight), dtype=z.dtype)
    for i in range(len(z)):
        for c, kept in enumerate(head.subspaces):
            logits[i, c] = bias[c] + sum(weight[c, j] * z[i, j] for j in kept.tolist())
    return logits


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 7), min_size=1, max_size=5), st.integers(0, 4))
def test_logits_equal_a_loop(seed: int, sizes: list[int], n: int) -> None:
    head, weight, bias = random_head(seed, sizes)
    z = torch.randn(n, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(head(z), naive_logits(head, weight, bias, z))


def test_leading_axes_are_kept() -> None:
    head, _, _ = random_head(0, [2, 3])
    z = torch.randn(4, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(head(z), head(z.reshape(20, 7)).reshape(4, 5, 2))
    assert head(z[0, 0]).shape == (2,)


def test_gradients_are_exact() -> None:
    head, _, _ = random_head(1, [0, 3, 7])
    z = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    inputs = (z, head.values, head.bias)
    assert torch.autograd.gradcheck(
        lambda x, values, bias: torch.func.functional_call(
            head, {"values": values, "bias": bias}, (x,)
        ),
        inputs,
    )


def test_dense_weight_is_zero_outside_the_subspaces() -> None:
    head, _, bias = random_head(2, [1, 4])
    z = torch.randn(3, 7, dtype=torch.float64)
    dense = head.dense_weight()
    assert int((dense != 0).sum()) == 5
    torch.testing.assert_close(z @ dense.T + bias, head(z))


def test_all_features_give_the_dense_head() -> None:
    head, weight, bias = random_head(3, [7, 7])
    z = torch.randn(3, 7, dtype=torch.float64)
    torch.testing.assert_close(head(z), z @ weight.T + bias)


def test_save_and_load(tmp_path: Path) -> None:
    head, _, _ = random_head(4, [2, 0, 5])
    head = head.float()
    head.layer = "fc"
    head.save(tmp_path / "head.safetensors", ["a", "b", "ü"], {"select": "frequency"})
    found = SparseHead.load(tmp_path / "head.safetensors")
    assert (found.layer, found.n_features, found.n_classes) == ("fc", 7, 3)
    z = torch.randn(3, 7)
    assert torch.equal(found(z), head(z))


def test_accuracies_count_right_samples() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.5]])
    labels = torch.tensor([0, 1, 1])
    identity = SparseHead.from_dense(torch.eye(2), None, Subspaces.of([[0], [1]], 2))
    swapped = SparseHead.from_dense(torch.eye(2).flip(0), None, Subspaces.of([[1], [0]], 2))
    found = accuracies([identity, swapped], Features.of(z, labels))
    assert found == pytest.approx([2 / 3, 1 / 3])


def test_what_does_not_fit_is_refused() -> None:
    subspaces = Subspaces.of([[0, 1], [2]], 3)
    with pytest.raises(InputError, match=r"expected a weight of shape \(2, 3\)"):
        SparseHead.from_dense(torch.ones(2, 4), None, subspaces)
    with pytest.raises(InputError, match="expected 3 values, one per kept feature"):
        SparseHead(subspaces, torch.ones(2), torch.ones(2))
    with pytest.raises(InputError, match=r"expected a bias of shape \(2,\), found \(3,\)"):
        SparseHead(subspaces, torch.ones(3), torch.ones(3))
    head = SparseHead(subspaces, torch.ones(3), torch.ones(2))
    with pytest.raises(InputError, match=r"expected features of shape \(..., 3\), found \(5, 4\)"):
        head(torch.ones(5, 4))


@pytest.mark.parametrize("sizes", [[3, 3, 3], [1, 0, 4]])
def test_torchscript_computes_the_same(sizes: list[int]) -> None:
    head, weight, bias = random_head(0, sizes)
    scripted = torch.jit.script(head)
    for shape in ((5,), (2, 3), ()):
        z = torch.randn(*shape, head.n_features)
        found = scripted(z).detach()
        assert found.shape == (*shape, head.n_classes)
        flat = naive_logits(head, weight, bias, z.reshape(-1, head.n_features))
        torch.testing.assert_close(found.reshape(-1, head.n_classes), flat, atol=1e-5, rtol=1e-5)


def test_files_that_are_no_heads_are_refused(tmp_path: Path) -> None:
    from penult.storage import write_tensors

    path = tmp_path / "head.safetensors"
    write_tensors(path, {"values": torch.ones(1)}, {"format": "penult-head/1"})
    with pytest.raises(InputError, match="holds no `indptr`"):
        SparseHead.load(path)
    write_tensors(path, {"values": torch.ones(1)}, {"format": "other/1"})
    with pytest.raises(InputError, match="expected format penult-head/1, found other/1"):
        SparseHead.load(path)

"""replace_head: another head in the place of a network's own, and back again bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces, top_k
from penult.network.find import FeatureTap, HeadNotFound, find_head, replace_head


class Transposed(nn.Module):
    """A linear layer with its weight (n_features, n_classes)."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(n_features, n_classes))

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.kernel


def state_of(model: nn.Module) -> tuple[Any, ...]:
    """All that a reversible edit must leave as it was."""
    modules = list(model.named_modules(remove_duplicate=False))
    return (
        [(name, id(module), module.training) for name, module in modules],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for _, m in modules],
        [(name, values.tolist()) for name, values in model.state_dict().items()],
        [(id(p), p.requires_grad, p.grad) for p in model.parameters()],
    )


def everything(n_classes: int, n_features: int) -> Subspaces:
    """Subspaces in which every class keeps every feature."""
    indices = torch.arange(n_features).repeat(n_classes)
    return Subspaces(torch.arange(n_classes + 1) * n_features, indices, n_features)


def dense_as_sparse(weight: Tensor, bias: Tensor | None, layer: str = "") -> SparseHead:
    return SparseHead.from_dense(weight.detach(), bias, everything(*weight.shape), layer)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_restores_bit_for_bit() -> None:
    model = mlp()
    model[1].eval()
    before, original = state_of(model), model[3]
    new = nn.Linear(6, 4)
    with replace_head(model, new, at="3") as replacement:
        assert model[3] is new
        assert replacement.original is original
        assert [p is q for p, q in zip(model[3].parameters(), new.parameters(), strict=True)]
        assert "3.weight" in dict(model.named_parameters())
    assert model[3] is original
    assert state_of(model) == before


def test_restores_after_an_error_in_the_body() -> None:
    model = mlp()
    before = state_of(model)

    def fail() -> None:
        with replace_head(model, nn.Linear(6, 4), at="3"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert state_of(model) == before


def test_stays_without_with() -> None:
    model, new = mlp(), nn.Linear(6, 4)
    original = model[3]
    replacement = replace_head(model, new, at="3")
    assert model[3] is new
    replacement.restore()
    replacement.restore()
    assert model[3] is original


def test_nested_replacements_come_off_in_turn() -> None:
    model = mlp()
    original, first, second = model[3], nn.Linear(6, 4), nn.Linear(6, 4)
    with replace_head(model, first, at="3") as outer:
        with replace_head(model, second, at="3"):
            assert model[3] is second
            with pytest.raises(InputError, match="layer 3 was replaced again since: restore the"):
                outer.restore()
        assert model[3] is first
    assert model[3] is original


def test_a_new_head_may_hold_the_old_one() -> None:
    model = mlp()
    original = model[3]
    with replace_head(model, nn.Sequential(original, nn.Identity()), at="3"):
        assert model(torch.randn(2, 5)).shape == (2, 4)
    assert model[3] is original


def test_a_layer_under_several_names_is_replaced_everywhere() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(5, 4)
            self.alias = self.fc
            self.block = nn.ModuleDict({"out": self.fc})

        def forward(self, x: Tensor) -> Any:
            return self.block["out"](x)

    model, new, x = Net(), nn.Linear(5, 4), torch.randn(3, 5)
    assert find_head(model, x).name == "fc"
    assert find_head(model, x, name="alias").name == "alias"
    before = state_of(model)
    with replace_head(model, new, at="alias"):
        assert model.fc is model.alias is model.block["out"] is new
        assert torch.equal(model(x), new(x))
    assert state_of(model) == before


@pytest.mark.parametrize("pool_first", [True, False])
def test_a_sparse_head_in_the_place_of_a_convolution(pool_first: bool) -> None:
    conv, pool = nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1)
    tail = [pool, conv] if pool_first else [conv, pool]
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), *tail, nn.Flatten())
    x = torch.randn(3, 2, 7, 7)
    head = find_head(model, x)
    sparse = dense_as_sparse(head.weight, head.bias, head.name)
    logits = model(x)
    before = state_of(model)
    with replace_head(model, sparse):
        torch.testing.assert_close(model(x), logits)
        assert {id(p) for p in sparse.parameters()} <= {id(p) for p in model.parameters()}
        with FeatureTap(model, head) as tap:
            model(x)
        torch.testing.assert_close(head(tap.features), logits)
        torch.testing.assert_close(tap.logits, logits)
        # Also where a replacement is replaced: the inner one must not be wrapped twice.
        with replace_head(model, nn.Identity(), at=head):
            assert model(x).shape == (3, 6)
        torch.testing.assert_close(model(x), logits)
    assert state_of(model) == before
    assert torch.equal(model(x), logits)


def test_a_transposed_weight() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), Transposed(6, 4))
    x = torch.randn(3, 5)
    head = find_head(model, x)
    logits = model(x)
    for at in (head, "2", None):
        with replace_head(model, dense_as_sparse(head.weight, head.bias), at=at):
            torch.testing.assert_close(model(x), logits)


def test_trains_through_the_new_head() -> None:
    model, x = mlp(), torch.randn(8, 5)
    layer = model[3]
    assert isinstance(layer, nn.Linear)
    weight = layer.weight.detach()
    subspaces = top_k(weight.abs(), 2)
    sparse = SparseHead.from_dense(weight, layer.bias.detach(), subspaces, "3")
    with replace_head(model, sparse):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        old = [p.detach().clone() for p in model.parameters()]
        model(x).square().sum().backward()
        # Oracle: the same gradient through a dense layer with zeros, read where it is kept.
        dense = nn.Linear(6, 4)
        dense.weight.data = sparse.dense_weight().detach()
        dense.bias.data = sparse.bias.detach().clone()
        z = model[2](model[1](model[0](x)))
        dense(z).square().sum().backward()
        assert dense.weight.grad is not None
        expected = dense.weight.grad[subspaces.classes(), subspaces.indices]
        torch.testing.assert_close(sparse.values.grad, expected)
        optimizer.step()
        moved = [not torch.equal(a, b) for a, b in zip(old, model.parameters(), strict=True)]
        assert moved[0]
        assert moved[-1]
        model.double()
        assert sparse.values.dtype == torch.float64
    assert model[3] is layer
    assert layer.weight.dtype == torch.float32


def test_at_is_found_where_it_is_not_given() -> None:
    model = mlp()
    with replace_head(model, nn.Linear(6, 4)) as replacement:
        assert replacement.name == "3"
    with replace_head(model, dense_as_sparse(torch.randn(4, 6), None, "3")) as replacement:
        assert replacement.name == "3"


@pytest.mark.parametrize(
    ("new", "at", "message"),
    [
        (
            nn.Linear(7, 4),
            "3",
            "maps 7 features to 4 classes, layer 3 maps 6 features to 4 classes",
        ),
        (
            nn.Linear(7, 4),
            None,
            "no layers map from 7 features to 4 classes.*with at=, one of 3, 0",
        ),
        (nn.Linear(6, 4), "2", r"to 4 classes, layer 2 is no linear map \(ReLU\)"),
        (nn.Sequential(nn.Linear(6, 4)), None, "does not say its size .* replaces with at="),
        (nn.Linear(6, 4, device="meta"), "3", r"the new head is on meta, layer 3 on cpu: move it"),
    ],
)
def test_heads_that_do_not_fit(new: nn.Module, at: str | None, message: str) -> None:
    model = mlp()
    before = state_of(model)
    with pytest.raises(InputError, match=message):
        replace_head(model, new, at)
    assert state_of(model) == before


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 4, 3),
        nn.Conv2d(6, 4, 1, stride=2),
        nn.Conv2d(6, 4, 1, padding=1),
        nn.Conv2d(6, 4, 1, groups=2),
    ],
)
def test_convolutions_that_are_no_plain_map(conv: nn.Conv2d) -> None:
    model = nn.Sequential(conv)
    with pytest.raises(InputError, match=r"layer 0 is no linear map \(Conv2d\)"):
        replace_head(model, nn.Linear(6, 4), at="0")
    with pytest.raises(InputError, match="no layers map from 6 features to 4 classes, as the new"):
        replace_head(model, nn.Linear(6, 4))


def test_layers_that_cannot_be_replaced() -> None:
    two = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    with pytest.raises(InputError, match="2 layers map from 6 features to 6 classes.*one of 2, 0$"):
        replace_head(two, nn.Linear(6, 6))
    with pytest.raises(HeadNotFound, match="the network has no layer fc: it has 2, 0"):
        replace_head(two, nn.Linear(6, 6), at="fc")
    alone, x = nn.Linear(6, 4), torch.randn(3, 6)
    with pytest.raises(InputError, match="the network itself is the linear layer and cannot be"):
        replace_head(alone, nn.Linear(6, 4), at=find_head(alone, x))
    head = find_head(two, x)
    with pytest.raises(InputError, match="maps 5 features to 6 classes, layer 2 maps 6 features"):
        replace_head(two, nn.Linear(5, 6), at=head)


def test_a_block_with_sizes_of_its_own_is_no_layer() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n_classes, self.n_features = 4, 6
            self.fc = nn.Linear(6, 4)

        def forward(self, z: Tensor) -> Any:
            return self.fc(z)

    model = nn.Sequential(nn.ReLU(), Block())
    with replace_head(model, nn.Linear(6, 4)) as replacement:
        assert replacement.name == "1.fc"

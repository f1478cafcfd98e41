"""FeatureTap and its helpers: what the head reads, seen without changing the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.network.find import FeatureTap, Head, HeadNotFound, device_of, evaluating, find_head


class Net(nn.Module):
    """Features that its head reads, then in-place work on both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 6)
        self.fc = nn.Linear(6, 4)
        self.skip = False

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.stem(x)
        if self.skip:
            return z
        y: Tensor = self.fc(z)
        out = y.clone()
        z.detach().zero_()
        y.detach().zero_()
        return out


def conv_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_copies_survive_in_place_work() -> None:
    model, x = Net(), torch.randn(3, 5)
    head = find_head(model, x)
    features, logits = model.stem(x), model.fc(model.stem(x))
    with FeatureTap(model, head) as tap:
        out = model(x)
        assert torch.equal(tap.features, features)
        assert torch.equal(tap.logits, logits)
        assert not tap.features.requires_grad
        assert out.requires_grad
        model(2 * x)
        assert torch.equal(tap.features, model.stem(2 * x))
    assert n_hooks(model) == 0


def test_hooks_go_after_an_error_too() -> None:
    model = Net()
    head = find_head(model, torch.randn(3, 5))

    def fail() -> None:
        with FeatureTap(model, head):
            assert n_hooks(model) == 2
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert n_hooks(model) == 0


def test_features_of_a_run_without_the_head() -> None:
    model, x = Net(), torch.randn(3, 5)
    head = find_head(model, x)
    message = "layer fc did not run in the network's last run, so there are no features"
    with FeatureTap(model, head) as tap:
        with pytest.raises(InputError, match=message):
            _ = tap.features
        model(x)
        assert len(tap.features) == 3
        model.skip = True
        model(x)
        with pytest.raises(InputError, match=message):
            _ = tap.logits


@pytest.mark.parametrize(("reduce", "index"), [("mean", None), ("position:5", (1, 0))])
def test_positions_of_a_convolution(reduce: str, index: tuple[int, int] | None) -> None:
    model, x = conv_net(), torch.randn(3, 2, 7, 7)
    found = find_head(model, x)
    head = Head(found.name, found.weight, found.bias, reduce)
    with FeatureTap(model, head) as tap, torch.no_grad():
        model(x)
        maps, outputs = model[0](x), model[1](model[0](x))
    for got, expected in ((tap.features, maps), (tap.logits, outputs)):
        one = expected.mean((2, 3)) if index is None else expected[:, :, index[0], index[1]]
        torch.testing.assert_close(got, one)


@pytest.mark.parametrize("n", [3, 1, 0])
def test_any_number_of_samples(n: int) -> None:
    model = conv_net()
    head = find_head(model, torch.randn(2, 2, 7, 7))
    with FeatureTap(model, head) as tap:
        model(torch.randn(n, 2, 7, 7))
    assert tap.features.shape == (n, 6)
    assert tap.logits.shape == (n, 4)


def test_keeps_the_networks_dtype() -> None:
    model = Net().bfloat16()
    x = torch.randn(3, 5, dtype=torch.bfloat16)
    head = find_head(model, x)
    with FeatureTap(model, head) as tap:
        model(x)
    assert tap.features.dtype == tap.logits.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("size", "reduce", "message"),
    [
        (7, "none", "expected one position per sample at the head, found 25 positions: find the"),
        (4, "position:5", "expected position 5 per sample at the head, found 4 positions"),
    ],
)
def test_other_positions_than_the_heads(size: int, reduce: str, message: str) -> None:
    model = conv_net()
    head = Head("1", torch.randn(4, 6), torch.zeros(4), reduce)
    with FeatureTap(model, head), pytest.raises(InputError, match=message):
        model(torch.randn(3, 2, size, size))


@pytest.mark.parametrize(
    ("name", "weight", "example", "message"),
    [
        ("fc", (4, 7), (3, 5), r"layer fc was found with 7 features and 4 classes, and now maps "
         r"float32 \(3, 6\) to float32 \(3, 4\)"),
        ("fc", (4, 6), (5,), r"layer fc ran without features: found float32 \(6,\)"),
    ],
)  # fmt: skip
def test_a_layer_that_reads_something_else(
    name: str, weight: tuple[int, int], example: tuple[int, ...], message: str
) -> None:
    model = Net()
    head = Head(name, torch.randn(*weight), torch.zeros(weight[0]))
    with FeatureTap(model, head), pytest.raises(InputError, match=message):
        model(torch.randn(*example))


def test_heads_without_a_layer() -> None:
    weight, bias = torch.randn(4, 6), torch.zeros(4)
    with pytest.raises(HeadNotFound, match="given as arrays: it names no layer of the network"):
        FeatureTap(Net(), Head("", weight, bias))
    with pytest.raises(HeadNotFound, match="the network has no layer fd: the nearest names are fc"):
        FeatureTap(Net(), Head("fd", weight, bias))
    wrapped = nn.Sequential(nn.Sequential(Net()))
    with pytest.raises(HeadNotFound, match=r"no layer fc: the nearest names are 0\.0\.fc"):
        FeatureTap(wrapped, Head("fc", weight, bias))


def test_evaluating_restores_every_flag() -> None:
    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Any:
            raise AssertionError("a network's own train() may do more than set a flag")

    model = nn.Sequential(nn.Linear(5, 6), Frozen(6), nn.Dropout())
    model[2].training = False
    flags = [m.training for m in model.modules()]
    with evaluating(model):
        assert not any(m.training for m in model.modules())
        assert torch.is_grad_enabled()
    assert [m.training for m in model.modules()] == flags


def test_device_of() -> None:
    assert device_of(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert device_of(nn.ReLU()) == torch.device("cpu")


def test_one_image_whose_axis_of_samples_is_squeezed_away() -> None:
    class Squeezing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3)
            self.fc = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.fc(self.conv(x).mean((2, 3), keepdim=True).squeeze())
            return found

    model, x = Squeezing(), torch.randn(3, 3, 8, 8)
    head = find_head(model, x)
    with torch.no_grad(), FeatureTap(model, head) as tap:
        model(x)
        together, logits = tap.features, tap.logits
        for i in range(3):
            model(x[i : i + 1])
            torch.testing.assert_close(tap.features, together[i : i + 1])
            torch.testing.assert_close(tap.logits, logits[i : i + 1])

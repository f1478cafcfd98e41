"""Heads that are made where no single layer gives the logits, against the network's own logits."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penult.network.calling import evaluating
from penult.network.explicit import ExplicitHead, Reading, find_or_make_head
from penult.network.find import FeatureTap, HeadNotFound, find_head
from penult.network.head import Head

N_FEATURES, N_CLASSES = 8, 4


class Body(nn.Module):
    """Features of small images, then whatever `tail` makes of them with the parts."""

    body: Any

    def __init__(self, tail: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, N_FEATURES, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        for name, part in parts.items():
            setattr(self, name, part)
        self.tail = tail

    def forward(self, x: Tensor) -> Any:
        return self.tail(self, self.body(x))


class Maps(Body):
    """Maps of features, for tails that pool by themselves."""

    def __init__(self, tail: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__(tail, **parts)
        self.body = self.body[:2]


class Normalised(nn.Module):
    """ArcFace's layer: both sides divided by their lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(N_CLASSES, N_FEATURES))

    def forward(self, z: Tensor) -> Tensor:
        found: Tensor = F.linear(F.normalize(z), F.normalize(self.weight))
        return found


class Lora(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base_layer = nn.Linear(N_FEATURES, N_CLASSES)
        self.down = nn.Linear(N_FEATURES, 2, bias=False)
        self.up = nn.Linear(2, N_CLASSES, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        base: Tensor = self.base_layer(z)
        adapted: Tensor = base + 0.5 * self.up(self.down(z))
        return adapted


def linear(n_classes: int = N_CLASSES) -> nn.Linear:
    return nn.Linear(N_FEATURES, n_classes)


def weights() -> nn.Parameter:
    return nn.Parameter(torch.randn(N_CLASSES, N_FEATURES))


def images(n: int = 5) -> Tensor:
    return torch.randn(n, 3, 8, 8)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def assert_made(model: nn.Module, x: Tensor, **options: Any) -> tuple[Any, Head]:
    """The network with its head gives what the network gives, on other images too."""
    found = find_or_make_head(model.eval(), x, **options)
    network, head = found.network, found.head
    assert isinstance(network, ExplicitHead)
    assert head.verified
    assert found.said
    for other in (x, images(7), images(1)):
        with torch.no_grad(), evaluating(network), FeatureTap(network, head) as tap:
            logits = network(other)
            expected = model(other)
        torch.testing.assert_close(logits, head(tap.features), rtol=1e-4, atol=1e-4)
        if not isinstance(expected, Tensor):
            continue
        if expected.ndim == 1 or expected.shape[1] == 1:
            one = expected.reshape(-1, 1)
            expected = torch.cat([torch.zeros_like(one), one], 1)
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    # The head of the network made is then found by what it computes.
    assert find_head(network, x).name == head.name
    return network, head


TAILS: dict[str, tuple[Callable[[], nn.Module], str, bool]] = {
    "arc": (lambda: Body(lambda m, z: 30 * m.head(z), head=Normalised()), "body", True),
    "cosine": (lambda: Body(lambda m, z: m.head(z), head=Normalised()), "body", True),
    "clip": (
        lambda: Body(lambda m, z: 100 * F.normalize(z) @ F.normalize(m.text).T, text=weights()),
        "body",
        True,
    ),
    "learned scale": (
        lambda: Body(
            lambda m, z: m.scale.exp() * F.normalize(z) @ m.text.T + m.shift,
            text=weights(),
            scale=nn.Parameter(torch.tensor(2.0)),
            shift=nn.Parameter(torch.randn(N_CLASSES)),
        ),
        "body",
        True,
    ),
    "lora": (lambda: Body(lambda m, z: m.fc(z), fc=Lora()), "body", False),
    "bare": (lambda: Body(lambda m, z: z @ m.text.T, text=weights()), "body", False),
    "temperature": (lambda: Body(lambda m, z: m.fc(z) / 0.07, fc=linear()), "body", False),
    "mean of heads": (
        lambda: Body(lambda m, z: (m.a(z) + m.b(z)) / 2, a=linear(), b=linear()), "body", False,
    ),
    "dropout between": (
        lambda: Body(
            lambda m, z: m.b(F.dropout(m.a(z), 0.5, m.training)) * 2,
            a=nn.Linear(N_FEATURES, 6), b=nn.Linear(6, N_CLASSES),
        ),
        "a", False,
    ),
    "functional pooling": (
        lambda: Maps(lambda m, z: 9 * F.normalize(z.mean((2, 3))) @ m.text.T, text=weights()),
        "body",
        True,
    ),
    "functional pooling and a scale": (
        lambda: Maps(lambda m, z: 9 * m.fc(F.adaptive_avg_pool2d(z, 1).flatten(1)), fc=linear()),
        "fc",
        False,
    ),
    "prior": (
        lambda: Body(lambda m, z: m.fc(z) - m.prior, fc=linear(), prior=torch.randn(N_CLASSES)),
        "body", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAILS)
def test_logits_linear_in_a_vector_get_one_head(name: str) -> None:
    build, layer, normalised = TAILS[name]
    model = build()
    network, head = assert_made(model, images())
    assert network.reading.normalised is normalised
    assert network.reading.layer.startswith(layer)
    assert (head.n_classes, head.n_features)[0] == N_CLASSES
    # The network is left as it was.
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_lora_is_merged() -> None:
    model = Body(lambda m, z: m.fc(z), fc=Lora())
    _, head = assert_made(model, images())
    lora: Any = model.fc
    merged = lora.base_layer.weight + 0.5 * lora.up.weight @ lora.down.weight
    torch.testing.assert_close(head.weight, merged.detach())
    torch.testing.assert_close(head.bias, lora.base_layer.bias.detach())


@pytest.mark.parametrize("seed", range(5))
def test_cosine_weights_are_those_of_the_formula(seed: int) -> None:
    torch.manual_seed(seed)
    model = Body(lambda m, z: 16 * m.head(z), head=Normalised())
    _, head = assert_made(model, images())
    layer: Any = model.head
    torch.testing.assert_close(
        head.weight, 16 * F.normalize(layer.weight.detach()), rtol=1e-3, atol=1e-3
    )
    assert float(head.bias.abs().max()) < 1e-3


@pytest.mark.parametrize(
    "tail",
    [
        lambda m, z: F.softmax(m.fc(z), 1) ** 2,
        lambda m, z: m.fc(z) + z.mean() * 3,
        lambda m, z: F.relu(m.fc(z)),
        lambda m, z: m.fc(z) * z.norm(dim=1, keepdim=True),
        lambda m, z: m.fc(z) + z.mean(),
        lambda m, z: -torch.cdist(z, m.fc.weight),
        lambda m, z: F.normalize(z, p=1) @ m.fc.weight.T,
    ],
)
def test_logits_that_are_not_linear_get_none(tail: Callable[[Any, Tensor], Tensor]) -> None:
    with pytest.raises(HeadNotFound):
        find_or_make_head(Body(tail, fc=linear()).eval(), images())


@pytest.mark.parametrize("squash", ["softmax", "log_softmax", "sigmoid"])
def test_of_a_network_that_ends_in_probabilities_the_logits_are_taken(squash: str) -> None:
    def tail(logits: Tensor) -> Any:
        return logits.sigmoid() if squash == "sigmoid" else getattr(logits, squash)(1)

    model = Body(lambda m, z: {"probabilities": tail(m.fc(z))}, fc=linear()).eval()
    found = find_or_make_head(model, images())
    assert found.network is model
    assert found.reading is None
    assert f"ends in {squash}: what fc gives before it is taken as the logits" in found.said
    assert (found.head.name, found.head.verified) == ("fc", True)
    x = images(7)
    with torch.no_grad(), FeatureTap(model, found.head) as tap:
        expected = model(x)["probabilities"]
        torch.testing.assert_close(tail(found.head(tap.features)), expected)


@pytest.mark.parametrize(
    "tail",
    [
        lambda m, z: (lambda t: t - t.mean(1, keepdim=True))(m.fc(z)),
        lambda m, z: m.fc(z) * 2,
        lambda m, z: m.fc(z)[:, [2, 0, 3, 1]],
    ],
)
def test_the_features_are_not_the_logits_themselves(tail: Callable[[Any, Tensor], Tensor]) -> None:
    network, head = assert_made(Body(tail, fc=linear()), images())
    assert head.n_features == N_FEATURES
    assert network.reading.layer.startswith("body")


def test_features_may_be_fewer_than_the_classes() -> None:
    narrow = Body(lambda m, z: z @ m.text.T * 2, text=nn.Parameter(torch.randn(11, N_FEATURES)))
    assert assert_made(narrow, images())[1].n_features == N_FEATURES


def test_a_way_around_the_vector_is_noticed() -> None:
    class Around(Body):
        def forward(self, x: Tensor) -> Any:
            return 2 * self.tail(self, self.body(x)) + x.mean((1, 2, 3))[:, None]

    with pytest.raises(HeadNotFound):
        find_or_make_head(Around(lambda m, z: m.fc(z), fc=linear()).eval(), images())


@pytest.mark.parametrize(
    "tail",
    [
        lambda m, z: m.fc(z),
        lambda m, z: m.fc(z)[:, 0],
        lambda m, z: m.fc(z).squeeze(1) * 3,
        lambda m, z: {"logits": m.fc(z).flatten()},
    ],
)
def test_one_logit_is_two_classes(tail: Callable[[Any, Tensor], Any]) -> None:
    model = Body(tail, fc=linear(1))
    network, head = assert_made(model, images(), n_classes=2)
    assert (head.n_classes, head.n_features) == (2, N_FEATURES)
    assert not head.weight[0].any()
    assert not head.bias[0]
    with torch.no_grad():
        x = images()
        one = tail(model, model.body(x))
        one = (one["logits"] if isinstance(one, dict) else one).flatten()
        torch.testing.assert_close(network(x).softmax(1)[:, 1], one.sigmoid())


def test_one_logit_by_its_layers_name() -> None:
    model = Body(lambda m, z: torch.sigmoid(m.fc(z)), fc=linear(1)).eval()
    found = find_or_make_head(model, images(), name="fc")
    assert (found.head.n_classes, found.head.verified) == (2, False)


def test_a_named_cosine_head_and_a_parameter() -> None:
    model = Body(lambda m, z: 30 * m.head(z), head=Normalised(), text=weights())
    _, head = assert_made(model, images(), name="head")
    assert head.n_classes == N_CLASSES
    with pytest.raises(HeadNotFound, match="^text is a parameter and no layer: leave --head out"):
        find_or_make_head(model.eval(), images(), name="text")


def test_an_explicit_head_can_be_copied_saved_and_made_again() -> None:
    model = Body(lambda m, z: 30 * m.head(z), head=Normalised()).eval()
    found = find_or_make_head(model, images())
    assert found.reading is not None
    reading = Reading.from_json(found.reading.to_json())
    again = ExplicitHead(copy.deepcopy(model), reading, found.head.weight, found.head.bias)
    twin = copy.deepcopy(found.network)
    twin.load_state_dict(again.state_dict())
    x = images()
    with torch.no_grad():
        assert torch.equal(again(x), found.network(x))
        assert torch.equal(twin(x), found.network(x))


def test_gradients_reach_the_images() -> None:
    found = find_or_make_head(Body(lambda m, z: 30 * m.head(z), head=Normalised()).eval(), images())
    x = images().requires_grad_(True)
    found.network(x)[:, 0].sum().backward()
    assert x.grad is not None
    assert bool(x.grad.abs().sum() > 0)


def test_quantised_layers_are_named() -> None:
    quantize: Any = torch.ao.quantization.quantize_dynamic
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = quantize(Body(lambda m, z: m.fc(z), fc=linear()).eval(), {nn.Linear})
    with pytest.raises(HeadNotFound, match="^layer fc is quantised: .* give the float network"):
        find_or_make_head(model, images())

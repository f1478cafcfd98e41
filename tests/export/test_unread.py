"""Unread channels: what makes only them goes, the logits stay, and the rest is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from penult.export.head_forms import head_layer
from penult.export.narrowing import operation_of
from penult.export.plain_graph import plain_graph, sped_up
from penult.export.shipped_head import ShippedHead
from penult.export.shipped_network import ShippedNetwork
from penult.export.traced import trace
from penult.export.unread import Dropped, drop_unread, graph_of, run_graph
from penult.network.find import find_head
from penult.network.replace import replace_head

N_FEATURES, READ = 8, [1, 2, 6]
N_READ = len(READ)


def conv(n_in: int, n_out: int, size: int = 3, groups: int = 1) -> nn.Sequential:
    """A convolution without bias and a batch norm that is no identity."""
    norm = nn.BatchNorm2d(n_out)
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean):
            assert values is not None
            values.uniform_(-1, 1)
        assert norm.running_var is not None
        norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(nn.Conv2d(n_in, n_out, size, 1, size // 2, 1, groups, False), norm)


class Base(nn.Module):
    """From 3 × 6 × 6 images to eight features and four logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, N_FEATURES)
        self.last = conv(N_FEATURES, N_FEATURES)
        self.head = nn.Linear(N_FEATURES, 4)

    def maps(self, x: Tensor) -> Tensor:
        """(n_samples, 8, 6, 6)."""
        return self.last(self.stem(x).relu()).relu()  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x).mean((2, 3)))  # type: ignore[no-any-return]


class Residual(Base):
    def maps(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return (self.last(x) + x).relu_()  # type: ignore[no-any-return]


class Depthwise(Base):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise = conv(N_FEATURES, N_FEATURES, groups=N_FEATURES)

    def maps(self, x: Tensor) -> Tensor:
        return nn.functional.hardswish(self.depthwise(super().maps(x)))


class Grouped(Base):
    def __init__(self) -> None:
        super().__init__()
        self.last = conv(N_FEATURES, N_FEATURES, groups=2)


class Multiplied(Base):
    """Two channels are made of each one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, N_FEATURES // 2)
        self.last = conv(N_FEATURES // 2, N_FEATURES, groups=N_FEATURES // 2)


class Squeezed(Base):
    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(N_FEATURES, 2, 1), nn.Conv2d(2, N_FEATURES, 1)

    def maps(self, x: Tensor) -> Tensor:
        x = super().maps(x)
        return x * self.wide(self.narrow(x.mean((2, 3), keepdim=True)).relu()).sigmoid()  # type: ignore[no-any-return]


class Branches(Base):
    def __init__(self) -> None:
        super().__init__()
        self.last, self.other = conv(N_FEATURES, 3), conv(N_FEATURES, 5, 1)

    def maps(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return torch.cat([self.last(x), self.other(x)], 1).relu()


class Swish(Base):
    """One tensor read twice, channel by channel both times."""

    def maps(self, x: Tensor) -> Tensor:
        x = self.last(self.stem(x).relu())
        return x * x.sigmoid()


class Scaled(Base):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(N_FEATURES, 1, 1))

    def maps(self, x: Tensor) -> Tensor:
        return self.scale * super().maps(x)


class Normed(Base):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(N_FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.maps(x).mean((2, 3))))  # type: ignore[no-any-return]


class Shuffled(Base):
    """Channels change places in a way that no axis tells."""

    def maps(self, x: Tensor) -> Tensor:
        return super().maps(x).unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)  # type: ignore[no-any-return, no-untyped-call]


class Pointwise(Base):
    """The head is a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(N_FEATURES, 4, 1)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        maps = nn.functional.adaptive_avg_pool2d(self.maps(x), 1)
        return self.head(maps).flatten(1)  # type: ignore[no-any-return]


class Maps(Base):
    """The head is a convolution over maps, whose logits are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(N_FEATURES, 4, 1)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x)).mean((2, 3))  # type: ignore[no-any-return]


class Hidden(Base):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(N_FEATURES, N_FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.maps(x).mean((2, 3))).relu())  # type: ignore[no-any-return]


class Tokens(Base):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(N_FEATURES, 2, batch_first=True)
        self.out = nn.Linear(N_FEATURES, N_FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.maps(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.mix(tokens, tokens, tokens)[0]
        tokens = tokens + self.out(tokens)
        return self.head(tokens[:, 0])  # type: ignore[no-any-return]


class OneToken(Tokens):
    """The features are normed, so that only the other tokens are left unread."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(N_FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.maps(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.mix(tokens, tokens, tokens)[0]
        tokens = tokens + self.out(tokens)
        return self.head(self.norm(tokens)[:, 0])  # type: ignore[no-any-return]


class NormedSwish(Normed):
    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.maps(x).mean((2, 3)))
        return self.head(z * z.sigmoid())  # type: ignore[no-any-return]


class Seen(Base):
    """What is changed in place is read afterwards under its old name."""

    def maps(self, x: Tensor) -> Tensor:
        x = self.last(self.stem(x).relu())
        nn.functional.relu_(x)
        return x


LAST = 3 * 3 * N_FEATURES
# Parameters that go: filters of nine or one number for each of five channels, and batch norm's two.
GONE = N_FEATURES - N_READ
KINDS: dict[type[Base], tuple[int, str]] = {
    Base: (GONE * (LAST + 2), ""),
    Residual: (GONE * (LAST + 2), "residual stream"),
    Depthwise: (GONE * (LAST + 2 + 9 + 2), ""),
    # As many filters in each group: one that is unread stays.
    Grouped: (GONE * 2 + (GONE - 1) * 36, "the convolution has 2 groups of several channels"),
    # One group of four is unread, with the filter that makes its channel.
    Multiplied: (GONE * (2 + 9) + 27 + 2, ""),
    Squeezed: (GONE * (2 + 1), "residual stream"),
    Branches: (LAST + 2 + 4 * (N_FEATURES + 2), ""),
    Swish: (GONE * (LAST + 2), ""),
    Scaled: (GONE * (LAST + 2 + 1), ""),
    Normed: (0, "layer norm takes mean and variance over all channels"),
    # Of four times two positions that become one axis, one of the four is unread.
    Shuffled: (2 * (LAST + 2), "4 × 2 positions become one axis"),
    Pointwise: (GONE * (LAST + 2), ""),
    Maps: (GONE * (LAST + 2), ""),
    Hidden: (GONE * (N_FEATURES + 1), ""),
    Tokens: (GONE * (N_FEATURES + 1), "residual stream"),
}


Traced = tuple[torch.export.ExportedProgram, torch.fx.GraphModule, Dropped, dict[str, Tensor]]


def narrowed(kind: type[Base]) -> Traced:
    """A network before and after, what is said of it, and images."""
    torch.manual_seed(0)
    model = kind().eval()
    x = torch.randn(5, 3, 6, 6)
    head = find_head(model, x)
    weight = torch.zeros_like(head.weight)
    weight[:, READ] = head.weight[:, READ]
    shipped = ShippedHead(replace(head, weight=weight), None, {})
    with replace_head(model, head_layer(shipped, "dense", drop=True), head):
        program = trace(ShippedNetwork(model, head), {"images": x})
    return program, *drop_unread(program), {"images": x}


def smaller(kind: type[Base]) -> tuple[int, Tensor, Tensor, Dropped]:
    """Parameters that went, logits before and after, and what is said of it."""
    program, module, dropped, images = narrowed(kind)
    expected = run_graph(graph_of(program), images)
    again = trace(module, images)
    found = run_graph(graph_of(again), images)
    gone = sum(p.numel() for p in program.parameters()) - sum(p.numel() for p in again.parameters())
    return gone, expected, found, dropped


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_makes_only_unread_channels_goes_and_the_logits_stay(kind: type[Base]) -> None:
    expected_gone, reason = KINDS[kind]
    gone, expected, found, dropped = smaller(kind)
    assert gone == expected_gone
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    said = " ".join(one["why"] for one in dropped.kept)
    assert reason in said
    assert bool(said) == bool(reason)
    assert bool(dropped.layers) == bool(gone)
    for one in dropped.layers:
        assert one["after"] < one["before"]


def test_a_tensor_that_is_changed_in_place_under_its_old_name_is_left_alone() -> None:
    _, expected, found, _ = smaller(Seen)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_layers_are_computed_for_the_only_token_that_is_read() -> None:
    gone, expected, found, dropped = smaller(OneToken)
    assert gone == 0
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert dropped.layers == []
    assert {"layer": "out (linear)", "before": 36, "after": 1} in dropped.positions
    # What is said is about channels.
    assert [one["at"] for one in dropped.kept] == ["norm (layer_norm)"]


class Strided(Base):
    """Every second and every third position, as the shortcuts of small residual networks take."""

    def maps(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.last(x[:, :, ::2, 1::3] + x[:, :, 1::2, 1::3])  # type: ignore[no-any-return]


def test_positions_at_even_distances_are_sliced_and_not_gathered() -> None:
    program, module, _, images = narrowed(Strided)
    kinds = [operation_of(node) for node in module.graph.nodes if node.op == "call_function"]
    assert "slice" in kinds
    assert "index_select" not in kinds
    expected = run_graph(graph_of(program), images)
    assert (run_graph(module, images) - expected).abs().max() <= 1e-5 * expected.abs().max()


class OneOfAGroup(Base):
    """Of the last group of two one channel is read, of the first both."""

    def __init__(self) -> None:
        super().__init__()
        self.last = conv(N_FEATURES, 4, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x).mean((2, 3))[:, [3, 0, 1, 3, 3, 3, 2, 3]])  # type: ignore[no-any-return]


def test_a_layer_that_stays_whole_is_not_said_to_be_smaller() -> None:
    gone, expected, found, dropped = smaller(OneOfAGroup)
    assert dropped.layers == []
    assert gone == 2
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_channels_that_are_read_are_said_once() -> None:
    *_, dropped = smaller(Residual)
    assert [one["layer"] for one in dropped.layers] == ["last.0 (conv2d)"]
    (kept,) = smaller(NormedSwish)[3].kept
    assert kept["at"] == "norm (layer_norm)"
    (kept,) = dropped.kept
    assert "by last.0 (conv2d)" in kept["why"]


class Activated(Base):
    """Activations of what others read too, and of what nobody else does."""

    def maps(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(x.relu() + x).relu()  # type: ignore[no-any-return]


def test_what_nobody_else_reads_is_changed_in_place_again() -> None:
    torch.manual_seed(0)
    model, x = Activated().eval(), torch.randn(2, 3, 6, 6)
    program = trace(ShippedNetwork(model, find_head(model, x)), {"images": x})
    module = plain_graph(program)
    sped_up(module.graph)
    module.recompile()
    kinds = [operation_of(node) for node in module.graph.nodes if node.op == "call_function"]
    assert kinds.count("batch_norm") == 2
    # Of the two activations one reads what a sum reads as well.
    assert (kinds.count("relu"), kinds.count("relu_")) == (1, 1)
    torch.testing.assert_close(run_graph(module, {"images": x}), model(x))

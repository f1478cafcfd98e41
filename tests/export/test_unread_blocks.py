"""Unread channels of odd blocks: the logits stay, and what no logit depends on goes.

The oracle is the gradient: parameters on which no logit depends, for any image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penult.export.cost import counted_cost, n_parameters
from penult.export.head_forms import head_layer
from penult.export.shipped_head import ShippedHead
from penult.export.shipped_network import ShippedNetwork
from penult.export.traced import trace
from penult.export.unread import Dropped, drop_unread, graph_of, run_graph
from penult.network.head import Head
from penult.network.replace import replace_head
from unread_oracles import n_unneeded

WIDTH, SIDE, N_SAMPLES, N_CLASSES = 8, 6, 3, 4
IMAGES = (N_SAMPLES, 3, SIDE, SIDE)


class Block(nn.Module):
    """Layers by name, and what is done with them."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)  # type: ignore[no-any-return]


class Net(nn.Module):
    """A convolution, a block, the features as a vector, four logits."""

    def __init__(self, block: nn.Module, vector: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.block, self.vector = nn.Conv2d(3, WIDTH, 3, padding=1), block, vector
        with torch.no_grad():
            n_features = self.features(torch.randn(IMAGES)).shape[1]
        self.head = nn.Linear(n_features, N_CLASSES)

    def features(self, x: Tensor) -> Tensor:
        return self.vector(self.block(torch.tanh(self.stem(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))  # type: ignore[no-any-return]


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def flat(x: Tensor) -> Tensor:
    return x.flatten(1)


def conv(n_in: int = WIDTH, n_out: int = WIDTH, size: int = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, size, padding=size // 2, groups=groups)


def norm(layer: nn.Module) -> nn.Module:
    """With numbers that are no identity."""
    with torch.no_grad():
        for values in [*layer.parameters(), *layer.buffers()]:
            if values.is_floating_point():
                values.uniform_(0.5, 2)
    return layer


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return 2 * grads[0]


def shared(m: Any, x: Tensor) -> Any:
    return torch.tanh(m.a(torch.tanh(m.a(x))))


def gated(m: Any, x: Tensor) -> Any:
    return x * torch.sigmoid(m.b(torch.tanh(m.a(x.mean((2, 3), keepdim=True)))))


def in_place(m: Any, x: Tensor) -> Any:
    x = m.a(x)
    view = x.view(x.shape[0], WIDTH, -1)
    view.mul_(2.0)
    x[:, 1:3].add_(3.0)
    return torch.tanh(x)


def written(m: Any, x: Tensor) -> Any:
    x = m.a(x)
    x[:, 1] = 0.5
    x[:, 4:] = torch.tanh(x[:, :4])
    return x


def attention_pooled(m: Any, x: Tensor) -> Any:
    tokens = m.a(x).flatten(2).transpose(1, 2)
    weights = torch.softmax(m.b(tokens), 1)
    return (weights * tokens).sum(1)[:, :, None, None]


def transformer(m: Any, x: Tensor) -> Any:
    tokens = x.flatten(2).transpose(1, 2)
    tokens = tokens + m.mix(*[m.n(tokens)] * 3)[0]
    tokens = tokens + m.b(F.gelu(m.a(tokens)))
    return tokens[:, 0][:, :, None, None]


def einsum(m: Any, x: Tensor) -> Any:
    return torch.einsum("nchw,dc->ndhw", m.a(x), m.b.weight)


def two_sizes(m: Any, x: Tensor) -> Any:
    return torch.cat([m.a(x), F.interpolate(F.avg_pool2d(m.b(x), 2), scale_factor=2.0)], 1)


def dense(m: Any, x: Tensor) -> Any:
    for layer in (m.a, m.b):
        x = torch.cat([x, torch.tanh(layer(x))], 1)
    return x


def split(m: Any, x: Tensor) -> Any:
    a, b = m.a(x).chunk(2, 1)
    return a * torch.sigmoid(b)


def parts(m: Any, x: Tensor) -> Any:
    a, b, c = m.a(x).split([3, 4, 1], 1)
    return torch.cat([torch.tanh(c), a, b], 1)


def of_one_kind(m: Any, x: Tensor) -> Any:
    return torch.stack([m.a(x), m.b(x)], 2).flatten(1, 2)


def constant_branch(m: Any, x: Tensor) -> Any:
    return m.a(x) + torch.ones(1, WIDTH, 1, 1) + torch.zeros_like(x[:, :1])


def shuffled(m: Any, x: Tensor) -> Any:
    return m.a(x).unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)


def maxed(m: Any, x: Tensor) -> Any:
    return m.a(x).flatten(2).max(2)[0][:, :, None, None]


def unit(m: Any, x: Tensor) -> Any:
    return F.normalize(m.a(x), dim=(2, 3))  # type: ignore[arg-type]


def volume(m: Any, x: Tensor) -> Any:
    return F.avg_pool3d(m.a(x[:, :, None]), (1, 2, 2)).squeeze(2)


def line(m: Any, x: Tensor) -> Any:
    return F.avg_pool1d(m.a(x.flatten(2)), 2).unsqueeze(3)


def tied(m: Any, x: Tensor) -> Any:
    return m.b(torch.tanh(m.a(x)))


def some_channels(m: Any, x: Tensor) -> Any:
    return m.a(x)[:, [7, 0, 0, 3, 2]]


def channels_last(m: Any, x: Tensor) -> Any:
    x = m.a(x).permute(0, 2, 3, 1)
    return F.gelu(m.b(x)).permute(0, 3, 1, 2).contiguous()


def convolution_of_positions(m: Any, x: Tensor) -> Any:
    return m.b(m.a(x).flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (6, 6))


def rolled(m: Any, x: Tensor) -> Any:
    return m.a(x).flip(1).roll(2, 3)


def standardised(m: Any, x: Tensor) -> Any:
    w = F.batch_norm(m.a.weight.view(1, WIDTH, -1), None, None, m.g.weight.view(-1), training=True)
    return F.conv2d(x, w.view_as(m.a.weight), m.a.bias, padding=1)


def counted(m: Any, x: Tensor) -> Any:
    """A buffer changes whenever the network runs."""
    m.a.running_mean.add_(1)
    return m.b(x)


def conditional(m: Any, x: Tensor) -> Any:
    return torch.cond(x.sum() > 0, torch.tanh, torch.sigmoid, (m.a(x),))


def without_gradient(m: Any, x: Tensor) -> Any:
    y = m.a(x)
    with torch.no_grad():
        scale = (y * 2).amax((2, 3), keepdim=True)
    return y + scale


def strided(m: Any, x: Tensor) -> Any:
    y = m.a(x)
    return torch.cat([y[:, ::2], y[:, -3:], y[:, 1:-1]], 1)


def uneven(m: Any, x: Tensor) -> Any:
    a, b, c = m.a(x).chunk(3, 1)
    return torch.cat([b * 2, a, c], 1)


def unfolded(m: Any, x: Tensor) -> Any:
    return F.fold(F.unfold(m.a(x), 2), (SIDE, SIDE), 2)


def nowhere_read(m: Any, x: Tensor) -> Any:
    m.b(x)
    return m.a(x)


def corner(m: Any, x: Tensor) -> Any:
    return torch.tanh(m.a(x))[:, :, -1:, 0:1]


def repeated(m: Any, x: Tensor) -> Any:
    return m.a(x).repeat(1, 2, 1, 1) + m.b(x).repeat_interleave(2, 1)


def scattered(m: Any, x: Tensor) -> Any:
    y = m.a(x)
    y[:, [1, 6]] = 2.0
    return y


def outer(m: Any, x: Tensor) -> Any:
    v = m.a(x).mean((2, 3))
    return torch.einsum("nc,nd->ncd", v, v).flatten(1)[:, :, None, None]


def spectrum(m: Any, x: Tensor) -> Any:
    return torch.fft.rfft(m.a(x), dim=1).abs()


def sorted_channels(m: Any, x: Tensor) -> Any:
    return m.a(x).sort(1)[0] + m.a(x).topk(8, 1)[0]


def layer_scaled(m: Any, x: Tensor) -> Any:
    y = m.b(m.n(x.permute(0, 2, 3, 1)))
    return x + (m.s.weight[:, 0] * m.a(y)).permute(0, 3, 1, 2)


def cross_attention(m: Any, x: Tensor) -> Any:
    tokens = x.flatten(2).transpose(1, 2)
    q, k, v = m.q(tokens[:, :1]), m.k(tokens), m.v(tokens)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)[:, :, :, None]


def tokens_of_images(m: Any, x: Tensor) -> Any:
    """Batch and positions are one axis while a norm is taken."""
    tokens = m.a(x.flatten(2).transpose(1, 2))
    return m.n(tokens.flatten(0, 1)).reshape_as(tokens).transpose(1, 2)[..., None]


def greatest_and_where(m: Any, x: Tensor) -> Any:
    values, places = m.a(x).flatten(2).max(2)
    return torch.cat([values[:, :4], places[:, 4:].float()], 1)[:, :, None, None]


def causal(m: Any, x: Tensor) -> Any:
    tokens = x.flatten(2).transpose(1, 2)
    q, k, v = m.q(tokens), m.k(tokens), m.v(tokens)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return torch.tanh(mixed)[:, -3].unflatten(1, (WIDTH, 1, 1))  # type: ignore[no-untyped-call]


def with_mask(m: Any, x: Tensor) -> Any:
    tokens = x.flatten(2).transpose(1, 2)
    mask = torch.arange(36)[:, None] % 5 == torch.arange(36) % 5
    mixed = F.scaled_dot_product_attention(m.q(tokens), m.k(tokens), m.v(tokens), mask)
    return torch.tanh(mixed)[:, 7].unflatten(1, (WIDTH, 1, 1))  # type: ignore[no-untyped-call]


def one_of_flat_tokens(m: Any, x: Tensor) -> Any:
    tokens = m.a(x.flatten(2).transpose(1, 2))
    return m.n(tokens.flatten(0, 1)).reshape_as(tokens)[:, 3].unflatten(1, (WIDTH, 1, 1))


def with_empty_part(m: Any, x: Tensor) -> Any:
    return torch.cat([x.new_empty(0), m.a(x)], 1)


def rolled_flat(m: Any, x: Tensor) -> Any:
    return m.a(x).roll(3)


def written_in_strides(m: Any, x: Tensor) -> Any:
    y = m.a(x)
    y[:, 1::2] = 0.5
    y[:, -2] = 2.0
    return y


def last_channel(m: Any, x: Tensor) -> Any:
    y = m.a(x)
    return torch.stack([y[:, -1], y[:, 2], y.select(1, -3)], 1)


def einsum_of_any(m: Any, x: Tensor) -> Any:
    return torch.einsum("n...,n...->n...", m.a(x), x)


def heads(m: Any, x: Tensor) -> Any:
    """Each head has its own product, and one matrix is the same for all samples."""
    tokens = m.a(x).flatten(2).unflatten(1, (2, 4))
    return (m.w.weight.view(1, 2, 4, 4) @ tokens).flatten(1, 2)[..., None]


def cut_in_two_axes(m: Any, x: Tensor) -> Any:
    return torch.cat([m.a(x).unflatten(1, (2, 4))[:, 1][:, 1:3], x[:, 2:]], 1)


def flat_and_read(m: Any, x: Tensor) -> Any:
    """What is flattened is read by channels elsewhere too."""
    x = m.a(x)
    return torch.cat([x.view(x.shape[0], -1), m.b(x).view(x.shape[0], -1)], 1)[..., None, None]


def split_samples(m: Any, x: Tensor) -> Any:
    n = x.shape[0]
    first, rest = x.flatten(0, 1).split([8, 8 * n - 8])  # type: ignore[no-untyped-call]
    return m.a(torch.cat([torch.tanh(first), rest]).view(n, 8, SIDE, SIDE))


def heads_alike(m: Any, x: Tensor) -> Any:
    tokens = m.a(x).flatten(2).unflatten(1, (4, 2))
    return (m.w.weight.view(1, 1, 2, 2) @ tokens).flatten(1, 2)[..., None]


def mean_token(m: Any, x: Tensor) -> Any:
    tokens = m.a(x.flatten(2).transpose(1, 2)).mean(1, keepdim=True)
    return torch.tanh(tokens).transpose(1, 2)[..., None]


def class_attention(m: Any, x: Tensor) -> Any:
    """The first token is mixed with all by itself, and joined with the others again."""
    tokens = x.flatten(2).transpose(1, 2)
    tokens = tokens + F.scaled_dot_product_attention(m.q(tokens), m.k(tokens), m.v(tokens))
    for _ in range(2):
        first = F.scaled_dot_product_attention(m.q(tokens[:, :1]), m.k(tokens), m.v(tokens))
        tokens = torch.cat([tokens[:, :1] + first, tokens[:, 1:]], 1)
    return tokens[:, 0].unflatten(1, (WIDTH, 1, 1))  # type: ignore[no-untyped-call]


def twins() -> dict[str, nn.Module]:
    a, b = conv(), conv()
    b.weight = a.weight
    return {"a": a, "b": b}


BLOCKS: dict[str, Callable[[], tuple[nn.Module, Callable[[Tensor], Tensor]]]] = {
    "plain": lambda: (conv(), pooled),
    "flattened maps": lambda: (conv(), flat),
    "flattened maps after pooling": lambda: (nn.Sequential(conv(), nn.MaxPool2d(2)), flat),
    "grouped": lambda: (conv(groups=2), pooled),
    "depthwise": lambda: (nn.Sequential(conv(), conv(groups=WIDTH)), pooled),
    "depthwise, several of each": lambda: (
        nn.Sequential(conv(8, 4), conv(4, WIDTH, groups=4)),
        pooled,
    ),
    "transposed": lambda: (nn.ConvTranspose2d(WIDTH, WIDTH, 2), pooled),
    "transposed, grouped": lambda: (
        nn.Sequential(conv(), nn.ConvTranspose2d(WIDTH, WIDTH, 2, groups=2)),
        pooled,
    ),
    "transposed, depthwise": lambda: (
        nn.Sequential(conv(), nn.ConvTranspose2d(WIDTH, WIDTH, 2, groups=WIDTH)),
        pooled,
    ),
    "batch norm": lambda: (nn.Sequential(conv(), norm(nn.BatchNorm2d(WIDTH))), pooled),
    "instance norm": lambda: (
        nn.Sequential(conv(), norm(nn.InstanceNorm2d(WIDTH, affine=True))),
        flat,
    ),
    "group norm": lambda: (nn.Sequential(conv(), norm(nn.GroupNorm(4, WIDTH))), pooled),
    "prelu": lambda: (nn.Sequential(conv(), nn.PReLU(WIDTH)), pooled),
    "prelu, one number": lambda: (nn.Sequential(conv(), nn.PReLU()), pooled),
    "glu": lambda: (nn.Sequential(conv(8, 16), nn.GLU(1)), pooled),
    "split and gated": lambda: (Block(split, a=conv(8, 16)), pooled),
    "split and joined": lambda: (Block(parts, a=conv()), pooled),
    "stacked": lambda: (Block(of_one_kind, a=conv(8, 4), b=conv(8, 4)), pooled),
    "pixel shuffle": lambda: (nn.Sequential(conv(8, 16), nn.PixelShuffle(2)), pooled),
    "pixel unshuffle": lambda: (nn.Sequential(conv(8, 4), nn.PixelUnshuffle(2)), pooled),
    "channel shuffle": lambda: (nn.Sequential(conv(), nn.ChannelShuffle(2)), pooled),
    "shuffled by hand": lambda: (Block(shuffled, a=conv()), pooled),
    "squeeze and excite": lambda: (Block(gated, a=conv(8, 2, 1), b=conv(2, 8, 1)), pooled),
    "densely joined": lambda: (Block(dense, a=conv(8, 8), b=conv(16, 8)), pooled),
    "two sizes": lambda: (Block(two_sizes, a=conv(8, 4), b=conv(8, 4)), pooled),
    "in place through a view": lambda: (Block(in_place, a=conv()), pooled),
    "written over": lambda: (Block(written, a=conv()), pooled),
    "a layer twice": lambda: (Block(shared, a=conv()), pooled),
    "tied weights": lambda: (Block(tied, **twins()), pooled),
    "constant branch": lambda: (Block(constant_branch, a=conv()), pooled),
    "attention pooling": lambda: (
        Block(attention_pooled, a=conv(), b=nn.Linear(WIDTH, 1)),
        pooled,
    ),
    "transformer": lambda: (
        Block(
            transformer,
            mix=nn.MultiheadAttention(WIDTH, 2, batch_first=True),
            n=nn.LayerNorm(WIDTH),
            a=nn.Linear(WIDTH, 16),
            b=nn.Linear(16, WIDTH),
        ),
        pooled,
    ),
    "einsum": lambda: (Block(einsum, a=conv(), b=nn.Linear(WIDTH, WIDTH, bias=False)), pooled),
    "greatest": lambda: (Block(maxed, a=conv()), pooled),
    "unit maps": lambda: (Block(unit, a=conv()), flat),
    "one axis": lambda: (Block(line, a=nn.Conv1d(WIDTH, WIDTH, 3)), pooled),
    "three axes": lambda: (Block(volume, a=nn.Conv3d(WIDTH, WIDTH, (1, 3, 3))), pooled),
    "some channels twice": lambda: (Block(some_channels, a=conv()), pooled),
    "channels last": lambda: (Block(channels_last, a=conv(), b=nn.Linear(WIDTH, 8)), pooled),
    "mixed positions": lambda: (
        Block(convolution_of_positions, a=conv(), b=nn.Linear(WIDTH, 8)),
        flat,
    ),
    "turned round": lambda: (Block(rolled, a=conv()), pooled),
    "weight norm": lambda: (
        nn.utils.parametrizations.weight_norm(conv()),
        pooled,
    ),
    "spectral norm": lambda: (nn.utils.parametrizations.spectral_norm(conv()), pooled),
    "custom gradient": lambda: (
        Block(lambda m, x: Doubled.apply(m.a(x)), a=conv()),  # type: ignore[no-untyped-call]
        pooled,
    ),
    "layer norm": lambda: (conv(), lambda x: F.layer_norm(x.mean((2, 3)), (WIDTH,))),
    "softmax": lambda: (conv(), lambda x: torch.softmax(x.mean((2, 3)), 1)),
    "standardised weights": lambda: (
        Block(standardised, a=conv(), g=nn.Linear(1, WIDTH)),
        pooled,
    ),
    "changing buffer": lambda: (Block(counted, a=nn.BatchNorm2d(WIDTH), b=conv()), pooled),
    "without gradient": lambda: (Block(without_gradient, a=conv()), pooled),
    "strides": lambda: (Block(strided, a=conv()), pooled),
    "uneven parts": lambda: (Block(uneven, a=conv()), pooled),
    "unfolded": lambda: (Block(unfolded, a=conv()), pooled),
    "nowhere read": lambda: (Block(nowhere_read, a=conv(), b=conv()), pooled),
    "corner": lambda: (Block(corner, a=conv()), pooled),
    "repeated": lambda: (Block(repeated, a=conv(), b=conv()), pooled),
    "scattered": lambda: (Block(scattered, a=conv()), pooled),
    "outer product": lambda: (Block(outer, a=conv()), pooled),
    "spectrum": lambda: (Block(spectrum, a=conv()), pooled),
    "sorted": lambda: (Block(sorted_channels, a=conv()), pooled),
    "layer scale": lambda: (
        Block(
            layer_scaled,
            n=nn.LayerNorm(WIDTH),
            b=nn.Linear(WIDTH, 16),
            a=nn.Linear(16, WIDTH),
            s=nn.Linear(1, WIDTH),
        ),
        pooled,
    ),
    "cross attention": lambda: (
        Block(cross_attention, q=nn.Linear(8, 8), k=nn.Linear(8, 8), v=nn.Linear(8, 8)),
        pooled,
    ),
    "norm of tokens": lambda: (
        Block(tokens_of_images, a=nn.Linear(WIDTH, WIDTH), n=norm(nn.BatchNorm1d(WIDTH))),
        pooled,
    ),
    "greatest and where": lambda: (Block(greatest_and_where, a=conv()), pooled),
    "causal attention": lambda: (
        Block(causal, q=nn.Linear(8, 8), k=nn.Linear(8, 8), v=nn.Linear(8, 8)),
        pooled,
    ),
    "attention with a mask": lambda: (
        Block(with_mask, q=nn.Linear(8, 8), k=nn.Linear(8, 8), v=nn.Linear(8, 8)),
        pooled,
    ),
    "one of all samples' tokens": lambda: (
        Block(one_of_flat_tokens, a=nn.Linear(WIDTH, WIDTH), n=norm(nn.BatchNorm1d(WIDTH))),
        pooled,
    ),
    "empty part": lambda: (Block(with_empty_part, a=conv()), pooled),
    "rolled as one": lambda: (Block(rolled_flat, a=conv()), pooled),
    "written over in strides": lambda: (Block(written_in_strides, a=conv()), pooled),
    "last channel": lambda: (Block(last_channel, a=conv()), pooled),
    "einsum of any axes": lambda: (Block(einsum_of_any, a=conv()), pooled),
    "a product for each head": lambda: (
        Block(heads, a=conv(), w=nn.Linear(4, 8, bias=False)),
        pooled,
    ),
    "cut in two axes": lambda: (Block(cut_in_two_axes, a=conv()), pooled),
    "flattened and read elsewhere": lambda: (
        Block(flat_and_read, a=conv(), b=conv()),
        lambda x: x[:, :, 0, 0],
    ),
    "samples split": lambda: (Block(split_samples, a=conv()), pooled),
    "the same product for all heads": lambda: (
        Block(heads_alike, a=conv(), w=nn.Linear(2, 2, bias=False)),
        pooled,
    ),
    "mean of tokens": lambda: (Block(mean_token, a=nn.Linear(8, 8)), pooled),
    "weight norm along the inputs": lambda: (
        nn.utils.parametrizations.weight_norm(conv(), dim=1),
        pooled,
    ),
    "class attention": lambda: (
        Block(class_attention, q=nn.Linear(8, 8), k=nn.Linear(8, 8), v=nn.Linear(8, 8)),
        pooled,
    ),
    "lstm": lambda: (
        Block(
            lambda m, x: m.a(x.flatten(2).transpose(1, 2))[0].transpose(1, 2)[:, :, :, None],
            a=nn.LSTM(WIDTH, WIDTH, batch_first=True),
        ),
        pooled,
    ),
    "padded": lambda: (nn.Sequential(conv(), nn.ReflectionPad2d(1), nn.ZeroPad2d(2)), pooled),
    "every channel in a residual stream": lambda: (
        Block(lambda m, x: (lambda y: y + m.b(y))(m.a(x)), a=conv(), b=conv()),
        pooled,
    ),
    "one block upon another by its own channels": lambda: (
        Block(lambda m, x: (lambda y: y + m.b(y))(m.a(x)), a=conv(), b=conv(groups=WIDTH)),
        pooled,
    ),
}
# What depends on no unread feature and stays nevertheless.
LEFT = {
    "grouped": 37,  # one filter more than is read, since all groups have as many
    "depthwise, several of each": 10,  # likewise
    "transposed, grouped": 51,  # those that any group needs, in every group
    "group norm": 2,  # scale and shift of what shares its group with a channel that is read
    "stacked": 73,  # of the axes that become one, one is narrowed
    "shuffled by hand": 73,  # likewise
    "written over": 146,  # what is written over is made first
    "greatest and where": 73,  # no gradient goes through a place
    "empty part": 365,  # no rule joins what has other axes
    "rolled as one": 219,  # nor follows what is rolled over all axes
    "written over in strides": 511,  # nor positions that are not neighbours
    "einsum of any axes": 365,  # nor axes that have no letter
    "a product for each head": 12,  # of two heads' rows the same are kept
    "unfolded": 365,  # no rule follows patches
    "scattered": 511,  # nor several positions that are written over
    "nowhere read": -584,  # a layer whose output nobody reads
    "tied weights": 5,  # the bias of a layer whose weight must stay
}


def smaller(
    model: nn.Module, read: list[int], images: Tensor
) -> tuple[int, Tensor, Tensor, Dropped]:
    """Parameters that went, logits before and after, and what is said of it."""
    layer = model.head
    assert isinstance(layer, nn.Linear)
    unread = sorted(set(range(layer.in_features)) - set(read))
    with torch.no_grad():
        layer.weight[:, unread] = 0
        expected = model(images)
    head = Head("head", layer.weight.detach().float(), layer.bias.detach().float())
    shipped = ShippedHead(head, None, {})
    with replace_head(model, head_layer(shipped, "dense", drop=True), head):
        program = trace(ShippedNetwork(model, head), {"images": images})
    module, dropped = drop_unread(program)
    again = trace(module, {"images": images})
    found = run_graph(graph_of(again), {"images": images})
    assert n_numbers(again) <= n_numbers(program)
    before, after = (counted_cost(p, {"images": images}, N_SAMPLES) for p in (program, again))
    assert after["multiplications"] <= before["multiplications"]
    return n_parameters(program) - n_parameters(again), expected, found, dropped


def n_numbers(program: torch.export.ExportedProgram) -> int:
    """Of all that a program holds, without positions."""
    held = [*program.state_dict.values(), *program.constants.values()]
    return sum(v.numel() for v in held if isinstance(v, Tensor) and v.is_floating_point())


def built(name: str) -> Net:
    return Net(*BLOCKS[name]()).eval()


QUICK = {
    *("grouped", "depthwise", "group norm", "glu", "pixel shuffle", "flattened maps", "einsum"),
    *("squeeze and excite", "tied weights", "in place through a view", "written over"),
    *("channels last", "weight norm", "transformer", "class attention", "some channels twice"),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)
        for name in BLOCKS
    ],
)
def test_what_no_logit_depends_on_goes_and_the_logits_stay(name: str) -> None:
    torch.manual_seed(1)
    model, images = built(name), torch.randn(IMAGES)
    n = model.head.in_features
    # Of flattened maps all positions of some channels, else some features.
    n_maps = n // WIDTH if n > 4 * WIDTH else 1
    read = [j for j in range(n) if j // n_maps in (0, 1, 6)]
    gone, expected, found, dropped = smaller(model, read, images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert gone == n_unneeded(model, "head", IMAGES) - LEFT.get(name, 0)


def chain(names: list[str]) -> nn.Module:
    """Blocks one after the other, with a layer between them where channels or maps change."""
    layers: list[nn.Module] = []
    for name in names:
        layers.append(CHAINED[name]())
        with torch.no_grad():
            _, n, side, _ = nn.Sequential(*layers).eval()(torch.randn(1, WIDTH, SIDE, SIDE)).shape
        if n != WIDTH:
            layers.append(conv(n, WIDTH, 1))
        if side < 4:
            layers.append(nn.Upsample((SIDE, SIDE)))
    return nn.Sequential(*layers)


def both(m: Any, x: Tensor) -> Any:
    return x + m.a(x)


def joined(m: Any, x: Tensor) -> Any:
    return torch.cat([x[:, :3], m.a(x)[:, 2:]], 1)


# From eight channels of any maps to some channels of maps.
CHAINED: dict[str, Callable[[], nn.Module]] = {
    **{
        name: lambda name=name: BLOCKS[name]()[0]  # type: ignore[misc]
        for name in (
            *("plain", "grouped", "depthwise", "depthwise, several of each", "batch norm", "prelu"),
            *("transposed", "transposed, grouped", "instance norm", "group norm", "glu", "stacked"),
            *("split and gated", "split and joined", "pixel shuffle", "channel shuffle", "padded"),
            *("shuffled by hand", "squeeze and excite", "a layer twice", "tied weights", "einsum"),
            *("in place through a view", "written over", "constant branch", "turned round"),
            *("some channels twice", "channels last", "weight norm", "transformer"),
        )
    },
    "residual": lambda: Block(both, a=conv()),
    "residual of each channel": lambda: Block(both, a=conv(groups=WIDTH)),
    "joined parts": lambda: Block(joined, a=conv()),
    "activation": lambda: nn.GELU(),
    "maps smaller": lambda: nn.Sequential(conv(), nn.AvgPool2d(2, ceil_mode=True)),
}


def random_network(seed: int) -> tuple[Net, list[int]]:
    """A chain of one to four blocks, and the features that are read: from one to all."""
    torch.manual_seed(seed)
    rows = torch.randint(len(CHAINED), (int(torch.randint(1, 5, ())),)).tolist()
    model = Net(chain([list(CHAINED)[row] for row in rows]), flat if seed % 4 == 0 else pooled)
    n = model.head.in_features
    size = 1 + int(torch.randint(n, ()))
    return model.eval(), sorted(torch.randperm(n)[:size].tolist())


SEEDS = [pytest.param(seed, marks=() if seed < 4 else pytest.mark.slow) for seed in range(40)]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_networks_keep_their_logits_and_never_grow(seed: int) -> None:
    model, read = random_network(seed)
    gone, expected, found, dropped = smaller(model, read, torch.randn(IMAGES))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    unneeded = n_unneeded(model, "head", IMAGES)
    assert 0 <= gone <= unneeded
    assert bool(gone) or not dropped.layers


def channels_last_and_read(m: Any, x: Tensor) -> Any:
    maps = m.a(x).permute(0, 2, 3, 1).contiguous()
    flat = maps.view(x.shape[0], -1)
    return torch.cat([flat, m.b(maps.permute(0, 3, 1, 2)).mean((2, 3))], 1)[..., None, None]


def test_neighbours_that_are_cut_out_of_maps_may_be_flattened() -> None:
    torch.manual_seed(0)
    block = Block(channels_last_and_read, a=conv(), b=conv())
    model, images = Net(block, lambda x: x[:, :, 0, 0]).eval(), torch.randn(IMAGES)
    n = WIDTH * SIDE * SIDE
    read = [j for j in range(n) if j % WIDTH < 2] + list(range(n, n + WIDTH))
    _, expected, found, dropped = smaller(model, read, images)
    assert "a residual stream" in dropped.kept[0]["why"]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_branch_of_the_network_needs_all_channels() -> None:
    torch.manual_seed(0)
    model, images = Net(Block(conditional, a=conv()), pooled).eval(), torch.randn(IMAGES)
    gone, expected, found, dropped = smaller(model, [0, 1, 6], images)
    assert gone == 0
    assert "may mix the channels" in dropped.kept[0]["why"]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_half_precision_keeps_its_logits() -> None:
    torch.manual_seed(0)
    model, images = built("depthwise").bfloat16(), torch.randn(IMAGES).bfloat16()
    gone, expected, found, _ = smaller(model, [0, 1, 6], images)
    assert gone > 0
    torch.testing.assert_close(found.float(), expected.float(), rtol=2e-2, atol=2e-2)

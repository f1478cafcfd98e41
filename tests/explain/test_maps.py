"""Maps of single features: exact where a network pools by a mean, attributed elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from penult.demo import DigitsCNN
from penult.errors import InputError
from penult.explain.attribution import N_CELLS, N_STEPS, AttributedMaps, cell_sums, cells
from penult.explain.maps import MeanMaps, open_maps, token_grid, upsampled
from penult.network.find import FeatureTap, Head, evaluating, find_head
from penult.network.load import import_torchvision, load_model

N_FEATURES, N_CLASSES = 5, 4


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Net(nn.Module):
    """A convolution, something that makes features of its maps, a linear head."""

    def __init__(self, pool: Callable[[Tensor], Tensor], channels: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, N_FEATURES, 3, padding=1)
        self.head = nn.Linear(N_FEATURES, N_CLASSES)
        self.pool = pool
        self.used: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        logits: Tensor = self.head(self.pool(maps))
        return logits


def mean(maps: Tensor) -> Tensor:
    return F.relu(maps).mean((2, 3))


def adaptive(maps: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(F.relu(maps), 1).flatten(1)


def window(maps: Tensor) -> Tensor:
    return F.avg_pool2d(F.relu(maps), maps.shape[2:]).flatten(1)


def summed(maps: Tensor) -> Tensor:
    return F.relu(maps).sum((2, 3)) / maps[0, 0].numel()


def product(maps: Tensor) -> Tensor:
    n_positions = maps[0, 0].numel()
    return F.relu(maps).flatten(2) @ torch.full((n_positions,), 1 / n_positions).to(maps)


def in_place_before(maps: Tensor) -> Tensor:
    return maps.relu_().mean((2, 3))


def in_place_after(maps: Tensor) -> Tensor:
    values = F.relu(maps)
    pooled = values.mean((2, 3))
    values.zero_()
    return pooled


def channels_last(maps: Tensor) -> Tensor:
    return F.relu(maps).permute(0, 2, 3, 1).contiguous().mean((1, 2))


def tokens(maps: Tensor) -> Tensor:
    return F.relu(maps.flatten(2).transpose(1, 2)).mean(1)


def tokens_behind_a_class_token(maps: Tensor) -> Tensor:
    sequence = maps.flatten(2).transpose(1, 2)
    return F.relu(torch.cat([sequence[:, :1] + 1, sequence], 1))[:, 1:].mean(1)


def piece_by_piece(maps: Tensor) -> Tensor:
    whole = torch.empty_like(maps)
    for j in range(N_FEATURES):
        whole[:, j] = F.relu(maps[:, j])
    return whole.mean((2, 3))


EXACT = (mean, adaptive, window, summed, product, in_place_before, in_place_after, channels_last,
         tokens, tokens_behind_a_class_token, piece_by_piece)  # fmt: skip


def maximum(maps: Tensor) -> Tensor:
    return maps.amax((2, 3))


def relu_and_maximum(maps: Tensor) -> Tensor:
    return F.relu(maps).amax((2, 3))


def normalised(maps: Tensor) -> Tensor:
    return F.layer_norm(maps.mean((2, 3)), (N_FEATURES,))


def class_token(maps: Tensor) -> Tensor:
    return maps.flatten(2).mean(2) * maps[:, :, 0, 0]


def mean_with_class_token(maps: Tensor) -> Tensor:
    sequence = maps.flatten(2)
    return F.relu(torch.cat([sequence[:, :, :1] + 1, sequence], 2)).mean(2)


def one_of_another_scale(maps: Tensor) -> Tensor:
    """Feature 2 is no mean, and so small beside the others that it hides in their rounding."""
    small = torch.ones(N_FEATURES).to(maps)
    small[2] = 1e-8
    values = maps * small[:, None, None]
    return torch.where(small < 1, values.amax((2, 3)), values.mean((2, 3)))


NOT_EXACT = (
    maximum,
    relu_and_maximum,
    normalised,
    class_token,
    mean_with_class_token,
    one_of_another_scale,
)


def maps_of(model: nn.Module, x: Tensor, **options: Any) -> Any:
    return open_maps(model, find_head(model, x), x, **options)


def head_of(model: Net) -> Head:
    """Of a network that changes its inputs, which `find_head` refuses."""
    return Head("head", model.head.weight.detach().float(), model.head.bias.detach().float())


def loops(pixels: Tensor) -> list[float]:
    """Means of (n_features, h, w), position by position."""
    return [
        sum(float(v) for row in plane for v in row) / plane.numel()
        for plane in pixels.double().cpu()
    ]


def state(model: nn.Module) -> dict[str, Any]:
    """All that running a network could leave behind in it."""
    return {
        "values": {k: v.clone().numpy().tobytes() for k, v in model.state_dict().items()},
        "grads": [p.grad for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [
            len(hooks)
            for m in model.modules()
            for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)
        ],
    }


# Exact maps


@pytest.mark.parametrize("pool", EXACT)
@pytest.mark.parametrize("size", [(6, 6), (4, 8)])
def test_exact_maps_are_what_is_pooled(pool: Any, size: tuple[int, int]) -> None:
    model, x = Net(pool), torch.randn(3, 2, *size)
    model.conv.weight.requires_grad_(False)
    model.pool.training = True  # type: ignore[attr-defined]
    before = state(model)
    maps = maps_of(model, x, attribution=False)
    assert (maps.kind, type(maps)) == ("mean", MeanMaps)
    assert "the mean over its cells is the feature's value" in maps.note
    wanted = [[0, 3], [], [4, 4, 1]]
    features, found = maps(x, wanted)
    assert state(model) == before
    expected = F.relu(model.conv(x)).detach()
    assert (features.dtype, features.device.type) == (torch.float32, "cpu")
    for i, own in enumerate(wanted):
        assert found[i].dtype == torch.float32
        assert torch.equal(found[i], expected[i, own])
        assert loops(found[i]) == pytest.approx(features[i, own].tolist(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("pool", NOT_EXACT)
def test_no_exact_maps_without_a_mean(pool: Any) -> None:
    model, x = Net(pool), torch.randn(3, 2, 6, 6)
    assert maps_of(model, x, attribution=False) is None
    assert maps_of(model, x).kind == "attribution"


@pytest.mark.parametrize("pool", [mean, maximum])
@pytest.mark.parametrize("n_samples", [1, 3])
def test_blank_images_do_not_make_a_maximum_a_mean(pool: Any, n_samples: int) -> None:
    model = Net(pool)
    model.conv.padding = (0, 0)
    head = find_head(model, torch.randn(2, 2, 6, 6))
    maps = open_maps(model, head, torch.ones(n_samples, 2, 6, 6), attribution=False)
    assert (maps is None) == (pool is maximum)


def test_constant_maps_are_none() -> None:
    model = Net(lambda maps: maps.amax((2, 3), True).expand_as(maps).mean((2, 3)))
    x = torch.randn(2, 2, 6, 6)
    assert maps_of(model, x, attribution=False) is None


def test_dead_features_have_maps_of_zeros() -> None:
    model, x = Net(mean), torch.randn(2, 2, 6, 6)
    with torch.no_grad():
        model.conv.bias[:2] = -1e6  # type: ignore[index]
    features, found = maps_of(model, x, attribution=False)(x, [[0, 1, 2]] * 2)
    assert not bool(features[:, :2].any())
    assert not bool(found[0][:2].any())
    assert bool(found[0][2].any())


def test_of_two_maps_of_equal_mean_the_last_wins() -> None:
    model, x = Net(lambda maps: F.relu(maps).flip(3).mean((2, 3))), torch.randn(2, 2, 6, 6)
    _, found = maps_of(model, x)(x, [[1], [2]])
    expected = F.relu(model.conv(x)).flip(3).detach()
    assert torch.equal(found[0], expected[0, [1]])
    assert torch.equal(found[1], expected[1, [2]])


def test_what_runs_after_the_head_is_no_map() -> None:
    class After(Net):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            self.used = F.relu(self.conv(x)).flip(3).sum()
            return logits

    model, x = After(mean), torch.randn(2, 2, 6, 6)
    _, found = maps_of(model, x)(x, [[1], [2]])
    assert torch.equal(found[0], F.relu(model.conv(x)).detach()[0, [1]])


def test_a_network_that_changes_its_inputs() -> None:
    class Changes(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5))

    model, x = Changes(mean), torch.randn(2, 2, 6, 6)
    maps = open_maps(model, head_of(model), x)
    for inputs in (x, torch.randn(2, 2, 4, 4)):
        given = inputs.clone()
        _, found = maps(inputs, [[0], [3]])
        assert torch.equal(inputs, given)
        assert torch.equal(found[1], F.relu(model.conv(inputs - 0.5)).detach()[1, [3]])


def test_tokens_in_the_order_of_a_grid_that_was_there() -> None:
    """3 × 8 patches of an image of 6 × 6: no square patches, but the network had them in a grid."""
    model, x = Net(lambda maps: F.relu(maps[:, :, ::2].repeat_interleave(2, 3)[..., :8])
                   .flatten(2).mean(2)), torch.randn(2, 2, 6, 6)  # fmt: skip
    features, (found, _) = maps_of(model, x)(x, [[0, 1], []])
    assert found.shape == (2, 3, 8)
    expected = F.relu(model.conv(x)[0, :2, ::2].repeat_interleave(2, 2)[..., :8])
    assert torch.equal(found, expected.detach())


def test_a_convolution_as_head_before_the_mean() -> None:
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(True),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten())  # fmt: skip
    x = torch.randn(2, 2, 8, 8)
    head = find_head(model, x, name="2")
    assert head.reduce == "mean"
    features, found = open_maps(model, head, x, attribution=True)(x, [[5], [0, 1]])
    expected = model[:2](x).detach()
    assert torch.equal(found[0], expected[0, [5]])
    assert torch.equal(found[1], expected[1, [0, 1]])
    torch.testing.assert_close(features, expected.mean((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    model, x = Net(mean).to(dtype), torch.randn(2, 2, 8, 8).to(dtype)
    features, found = maps_of(model, x, attribution=False)(x, [[0], [1]])
    assert features.dtype == found[0].dtype == torch.float32
    eps = max(torch.finfo(dtype).eps, 1e-6)
    assert float(found[1].mean()) == pytest.approx(float(features[1, 1]), rel=4 * eps)


def test_another_size_and_another_number_of_operators() -> None:
    """Convolutions take any size; and some operators run only for one sample, as in libraries."""

    class Odd(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * 1 * 1 if len(x) == 1 else x)

    model, x = Odd(mean), torch.randn(3, 2, 6, 6)
    maps = maps_of(model, x)
    for inputs in (x[:1], x, torch.randn(2, 2, 4, 10), torch.randn(1, 2, 6, 6), x):
        _, found = maps(inputs, [[2]] * len(inputs))
        assert torch.equal(found[0], F.relu(model.conv(inputs)).detach()[0, [2]])


def test_one_sample_as_many_as_features() -> None:
    """Weights (5, 5, 3, 3) look like maps of 5 samples with 5 features."""
    model, x = Net(mean, channels=5), torch.randn(5, 5, 6, 6)
    _, found = maps_of(model, x)(x, [[3]] * 5)
    assert torch.equal(found[4], F.relu(model.conv(x)).detach()[4, [3]])


def test_a_network_that_computes_otherwise_on_other_inputs() -> None:
    class Switch(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.pool = relu_and_maximum if float(x.mean()) > 5 else mean
            return super().forward(x)

    model, x = Switch(mean), torch.randn(2, 2, 6, 6)
    maps = maps_of(model, x)
    before = state(model)
    with pytest.raises(
        InputError,
        match=r"were the means of maps on the example, and on these inputs \(float32 "
        r"\(2, 2, 6, 6\)\) they are the means of no tensor in the network: open the maps with",
    ):
        maps(x + 10, [[0], [1]])
    assert state(model) == before


def test_a_network_that_computes_otherwise_each_time() -> None:
    class Grows(Net):
        n_runs = 0

        def forward(self, x: Tensor) -> Tensor:
            self.n_runs += 1
            for _ in range(self.n_runs):
                x = x + 0
            return super().forward(x)

    model, x = Grows(mean), torch.randn(2, 2, 6, 6)
    maps = maps_of(model, x)
    with pytest.raises(InputError, match="runs other operators each time, even on the same inputs"):
        maps(x, [[0], [1]])


def test_runs_through_traced_networks() -> None:
    model, x = DigitsCNN(), torch.randn(2, 1, 8, 8)
    maps = maps_of(model, x, attribution=False)
    model.stem = torch.jit.trace(model.stem.eval(), x)  # type: ignore[no-untyped-call]
    features, found = maps(x, [[7], [8]])
    assert float(found[0].mean()) == pytest.approx(float(features[0, 7]), abs=1e-6)


@pytest.mark.parametrize("n_layers", [20, 32])
def test_cifar_resnets(n_layers: int, repository: Path) -> None:
    model = load_model(f"{repository / 'bench' / 'cifar_resnet.py'}:resnet{n_layers}").model
    x = torch.randn(2, 3, 32, 32)
    features, found = maps_of(model, x)(x, [[0, 63], [5]])
    expected: list[Tensor] = []
    handle = model.get_submodule("layer3").register_forward_hook(
        lambda module, args, output: expected.append(output)
    )
    with evaluating(model), torch.no_grad():
        model(x)
    handle.remove()
    assert torch.equal(found[0], expected[0][0, [0, 63]])
    assert loops(found[0]) == pytest.approx(features[0, [0, 63]].tolist(), rel=1e-5)


# Messages


def test_says_what_wanted_lacks() -> None:
    model, x = Net(mean), torch.randn(3, 2, 6, 6)
    head = find_head(model, x)
    for maps in (open_maps(model, head, x), AttributedMaps(model, head, x)):
        with pytest.raises(InputError, match="features for each of 3 inputs, found them for 2"):
            maps(x, [[0], [1]])
        with pytest.raises(InputError, match="expected wanted features from 0 to 4, found 5"):
            maps(x, [[0], [], [1, 5]])
        with pytest.raises(InputError, match="from 0 to 4, found -1"):
            maps(x, [[0], [], [-1]])
        with pytest.raises(InputError, match=r"expected floating images \(n_samples, channels"):
            maps(x[0], [[0]] * 3)


@pytest.mark.parametrize("example", [torch.ones(2, 6), torch.ones(2, 2, 6, 6).long(),
                                     torch.ones(0, 2, 6, 6)])  # fmt: skip
def test_says_what_an_example_is(example: Tensor) -> None:
    model = Net(mean)
    head = find_head(model, torch.randn(2, 2, 6, 6))
    with pytest.raises(InputError, match=r"height, width\), found (float32|int64) \("):
        open_maps(model, head, example)


def test_says_that_the_network_does_not_run_on_the_example() -> None:
    model = Net(mean)
    head = find_head(model, torch.randn(2, 2, 6, 6))
    with pytest.raises(InputError, match=r"does not run on the example \(float32 \(4, 3, 6, 6\)"):
        open_maps(model, head, torch.randn(2, 3, 6, 6))
    assert not any(state(model)["hooks"])


def test_says_how_captum_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    x = torch.randn(2, 2, 6, 6)
    assert maps_of(Net(mean), x).kind == "mean"
    assert maps_of(Net(maximum), x, attribution=False) is None
    with pytest.raises(
        InputError, match=r"captum is needed .* pip install 'penult\[attribution\]'"
    ):
        maps_of(Net(maximum), x)


# Attributed maps


def captured(model: nn.Module, head: Head, x: Tensor) -> Tensor:
    with FeatureTap(model, head) as tap, evaluating(model), torch.no_grad():
        model(x.clone())
    return tap.features


class Smooth(Net):
    """No exact maps, no kinks, and something in the way: it changes its inputs in place."""

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5)
        maps = torch.tanh(self.conv(x))
        logits: Tensor = self.head(torch.logsumexp(maps.flatten(2), 2))
        return logits


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attribution_is_that_of_a_slow_integral(mode: Any, dtype: torch.dtype) -> None:
    model = Smooth(maximum).to(dtype)
    head = head_of(model)
    wanted = [[1, 0], [], [4]]
    with mode():
        x = torch.randn(3, 2, 14, 14).to(dtype)
        before, given = state(model), x.clone()
        features, found = open_maps(model, head, x)(x, wanted)
        assert state(model) == before
        assert torch.equal(x, given)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, captured(model, head, x).float())
    places, weights = np.polynomial.legendre.leggauss(N_STEPS)
    zeros = captured(model, head, torch.zeros_like(x[:1]))[0]
    for i, own in enumerate(wanted):
        assert found[i].shape == (len(own), 7, 7)
        for j, map_j in zip(own, found[i], strict=True):
            total = torch.zeros(2, 14, 14, dtype=dtype)
            for place, weight in zip(places, weights, strict=True):
                point = ((place + 1) / 2 * x[i : i + 1].clone()).requires_grad_()
                z = torch.logsumexp(torch.tanh(model.conv(point - 0.5)).flatten(2), 2)[0, j]
                total += weight / 2 * torch.autograd.grad(z, point)[0][0] * x[i]
            expected = slow_cells(total.sum(0).float())
            torch.testing.assert_close(map_j, expected, rtol=1e-3, atol=1e-5)
            assert float(map_j.mean()) == pytest.approx(float(features[i, j] - zeros[j]), abs=1e-4)


def slow_cells(pixels: Tensor) -> Tensor:
    """`cell_sums` of one image, by pixels that are divided until no cell's edge cuts one."""
    (height, width), (h, w) = pixels.shape, cells(*pixels.shape)
    fine = pixels.repeat_interleave(h, 0).repeat_interleave(w, 1) / (h * w)
    sums = torch.zeros(h, w)
    for r, c in itertools.product(range(h), range(w)):
        cell = fine[r * height : (r + 1) * height, c * width : (c + 1) * width].sum()
        for dr, dc in itertools.product((-1, 0, 0, 1), (-1, 0, 0, 1)):
            sums[min(max(r + dr, 0), h - 1), min(max(c + dc, 0), w - 1)] += cell / 16
    return sums * h * w


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_cells_share_out_all_pixels(height: int, width: int, seed: int) -> None:
    pixels = torch.randn(2, height, width, generator=torch.Generator().manual_seed(seed))
    found = cell_sums(pixels)
    h, w = cells(height, width)
    assert found.shape == (2, h, w)
    assert max(h, w) <= N_CELLS
    assert (h, w) <= (height, width)
    torch.testing.assert_close(found.mean((1, 2)), pixels.sum((1, 2)), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found[0], slow_cells(pixels[0]), rtol=1e-4, atol=1e-3)


def test_images_are_run_in_small_batches() -> None:
    sizes: list[int] = []
    model, x = Smooth(maximum), torch.randn(3, 2, 300, 300)
    maps = open_maps(model, head_of(model), x)
    handle = model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    _, found = maps(x, [[0, 1, 2], [3], [4]])
    handle.remove()
    assert [m.shape for m in found] == [(3, 7, 7), (1, 7, 7), (1, 7, 7)]
    assert sizes[0] == 3
    assert max(sizes[1:]) == 4
    assert sum(sizes[1:]) == 5 * N_STEPS


def test_nothing_wanted_costs_one_run() -> None:
    model, x = Smooth(maximum), torch.randn(2, 2, 6, 6)
    features, found = open_maps(model, head_of(model), x)(x, [[], []])
    assert [m.shape for m in found] == [(0, 6, 6)] * 2
    torch.testing.assert_close(features, captured(model, head_of(model), x))


class Detached(Net):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(x).detach().amax((2, 3)))
        return logits


class ThroughNumpy(Net):
    def forward(self, x: Tensor) -> Tensor:
        maps = torch.from_numpy(self.conv(x).numpy())
        logits: Tensor = self.head(maps.amax((2, 3)))
        return logits


class Steep(Net):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(x).amax((2, 3)) + (x * 0).sum().sqrt())
        return logits


def test_says_that_no_gradient_comes() -> None:
    x = torch.randn(2, 2, 6, 6)
    with pytest.raises(InputError, match="cannot be attributed to the images, as no gradient"):
        maps_of(Detached(maximum), x)
    with pytest.raises(InputError, match=r"attributed to the images: RuntimeError: Can't call num"):
        maps_of(ThroughNumpy(maximum), x)
    maps = maps_of(Steep(maximum), x)
    with pytest.raises(InputError, match="gradient of feature 3 by the image is NaN or infinite"):
        maps(x, [[], [3]])


# Planted


def planted(pool: Any) -> tuple[Net, Tensor]:
    """Feature 3 sees brightness above 1 alone, which only one corner of each image has."""
    model = Net(pool, channels=1)
    with torch.no_grad():
        model.conv.weight[3] = 0
        model.conv.weight[3, 0, 1, 1] = 1
        assert model.conv.bias is not None
        model.conv.bias[3] = -1
    x = torch.rand(4, 1, 28, 28)
    for i, (rows, columns) in enumerate(itertools.product((slice(4), slice(-4, None)), repeat=2)):
        x[i, 0, rows, columns] += 2
    return model, x


@pytest.mark.parametrize(
    ("pool", "kind"),
    [(mean, "mean"), (lambda maps: torch.exp(F.relu(maps).mean((2, 3))), "attribution")],
)
def test_a_feature_that_sees_a_corner(pool: Any, kind: str) -> None:
    model, x = planted(pool)
    maps = maps_of(model, x)
    assert maps.kind == kind
    _, found = maps(x, [[3]] * 4)
    for i, corner in enumerate(itertools.product((False, True), repeat=2)):
        h, w = found[i].shape[1:]
        row, column = divmod(int(found[i][0].argmax()), w)
        assert (row >= h / 2, column >= w / 2) == corner
        far = found[i][0].flip([d for d, flipped in enumerate(corner) if flipped])[h // 2 :]
        assert not bool(far.any())


# Helpers


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.booleans())
@settings(max_examples=200, deadline=None)
def test_token_grids_of_square_patches(height: int, width: int, side: int, pad: bool) -> None:
    rows, columns = height // side, width // side
    if pad:
        rows, columns = -(-height // side), -(-width // side)
    if rows * columns:
        grid = token_grid(rows * columns, (height, width))
        assert grid is not None
        # Of several grids of one number the one nearest to the image's shape is taken.
        error = abs(height * grid[1] - width * grid[0])
        assert error <= abs(height * columns - width * rows)
        assert grid[0] * grid[1] == rows * columns


@pytest.mark.parametrize(
    ("n_tokens", "size", "grid"),
    [
        (196, (224, 224), (14, 14)),
        (197, (224, 224), None),
        (198, (224, 224), None),
        (5, (32, 32), None),
        (2, (32, 32), None),
        (12, (64, 64), None),
        (98, (112, 224), (7, 14)),
        (16, (65, 64), (4, 4)),
        (8, (32, 256), (1, 8)),
        (1369, (518, 518), (37, 37)),
    ],
)
def test_token_grids(n_tokens: int, size: tuple[int, int], grid: Any) -> None:
    assert token_grid(n_tokens, size) == grid


def test_upsampled_maps() -> None:
    maps = torch.randn(2, 3, 4)
    found = upsampled(maps, (6, 12))
    assert found.shape == (2, 6, 12)
    for n, r, c in itertools.product(range(2), range(6), range(12)):
        y, x = max((r + 0.5) / 2 - 0.5, 0), max((c + 0.5) / 3 - 0.5, 0)
        (top, left), (fy, fx) = (int(y), int(x)), (y % 1, x % 1)
        below, right = min(top + 1, 2), min(left + 1, 3)
        expected = (1 - fy) * ((1 - fx) * maps[n, top, left] + fx * maps[n, top, right]) + fy * (
            (1 - fx) * maps[n, below, left] + fx * maps[n, below, right]
        )
        assert float(found[n, r, c]) == pytest.approx(float(expected), abs=1e-5)
    assert upsampled(maps[:0], (6, 12)).shape == (0, 6, 12)


# Architectures of torchvision and timm

for package in ("torchvision", "timm"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)
import_torchvision()
tv = importlib.import_module("torchvision.models")
tm = importlib.import_module("timm")
SWIN = {
    "patch_size": [4, 4],
    "embed_dim": 24,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": [7, 7],
}
VIT = {"patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
TINY_VIT = {"img_size": 64, "depth": 2, "num_classes": N_CLASSES}
Last = Callable[[Tensor], Tensor]


def tv_model(name: str, **options: Any) -> Any:
    return getattr(tv, name)(num_classes=N_CLASSES, **options)


# The module whose output is pooled, and how it becomes (n_samples, n_features, h, w).
POOLED: dict[str, tuple[Callable[[], Any], str, Last, tuple[int, int]]] = {
    "resnet18": (lambda: tv_model("resnet18"), "layer4", lambda y: y, (2, 2)),
    "densenet": (
        lambda: tv_model("DenseNet", block_config=(2, 2, 2, 2)),
        "features",
        F.relu,
        (2, 2),
    ),
    "mobilenet_v2": (lambda: tv_model("mobilenet_v2"), "features", lambda y: y, (2, 2)),
    "swin": (
        lambda: tv_model("SwinTransformer", **SWIN),
        "norm",
        lambda y: y.movedim(-1, 1),
        (8, 8),
    ),
    "timm vit, mean of tokens": (
        lambda: tm.create_model(
            "vit_tiny_patch16_224", global_pool="avg", fc_norm=False, **TINY_VIT
        ),
        "norm",
        lambda y: y[:, 1:].transpose(1, 2).reshape(2, -1, 4, 4),
        (4, 4),
    ),
    "timm mixer": (
        lambda: tm.create_model("mixer_s32_224", img_size=64, num_classes=N_CLASSES),
        "norm",
        lambda y: y.transpose(1, 2).reshape(2, -1, 2, 2),
        (2, 2),
    ),
}


def run_with(model: nn.Module, name: str, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    layer = model.get_submodule(name)
    handle = layer.register_forward_hook(lambda module, args, y: seen.append(y.clone()))
    with evaluating(model), torch.no_grad():
        model(x)
    handle.remove()
    return seen[-1]


@pytest.mark.parametrize("name", POOLED)
def test_exact_maps_of_architectures(name: str) -> None:
    build, layer, last, grid = POOLED[name]
    model, x = build(), torch.randn(2, 3, 64, 64)
    before = state(model)
    maps = maps_of(model, x, attribution=False)
    features, found = maps(x, [[0, 9], [3]])
    assert state(model) == before
    expected = last(run_with(model, layer, x))
    assert found[0].shape == (2, *grid)
    torch.testing.assert_close(found[0], expected[0, [0, 9]], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[1], expected[1, [3]], rtol=1e-4, atol=1e-6)
    assert loops(found[0]) == pytest.approx(features[0, [0, 9]].tolist(), rel=1e-4, abs=1e-6)
    one, _ = maps(x[:1], [[0]])
    torch.testing.assert_close(one, features[:1], rtol=1e-4, atol=1e-5)


def test_exact_maps_of_squeezenet() -> None:
    model, x = tv_model("squeezenet1_1"), torch.randn(2, 3, 64, 64)
    head = find_head(model, x, name="classifier.1")
    features, found = open_maps(model, head, x, attribution=True)(x, [[7], [8]])
    expected = run_with(model, "features", x)
    assert torch.equal(found[0], expected[0, [7]])
    torch.testing.assert_close(features, expected.mean((2, 3)))


ATTRIBUTED: dict[str, Callable[[], Any]] = {
    "mobilenet_v3": lambda: tv_model("mobilenet_v3_small"),
    "vision transformer": lambda: tv_model("VisionTransformer", image_size=64, **VIT),
    "timm vit": lambda: tm.create_model("vit_tiny_patch16_224", **TINY_VIT),
    "timm vit, norm after the mean": lambda: tm.create_model(
        "vit_tiny_patch16_224", global_pool="avg", **TINY_VIT
    ),
    "timm convnext": lambda: tm.create_model(
        "convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 16, 32), num_classes=N_CLASSES
    ),
}


@pytest.mark.parametrize("name", ATTRIBUTED)
def test_attributed_maps_of_architectures(name: str) -> None:
    model, x = ATTRIBUTED[name](), torch.randn(2, 3, 64, 64)
    # Without biases a blank image gives features of size zero, which a layer norm blows up.
    for values in model.parameters():
        if values.ndim == 1:
            values.data += 0.1 * torch.randn_like(values)
    head = find_head(model, x)
    assert open_maps(model, head, x, attribution=False) is None
    before = state(model)
    maps = open_maps(model, head, x)
    assert maps.kind == "attribution"
    assert "integrated gradients" in maps.note
    wanted = [[0, 1], [5]]
    features, found = maps(x, wanted)
    assert state(model) == before
    blank = captured(model, head, torch.zeros_like(x[:1]))[0]
    for i, own in enumerate(wanted):
        assert found[i].shape == (len(own), 7, 7)
        moved = (features[i] - blank)[own]
        scale = max(float(moved.abs().max()), 1e-5 * float(features.abs().max()))
        assert found[i].mean((1, 2)).tolist() == pytest.approx(moved.tolist(), abs=0.05 * scale)

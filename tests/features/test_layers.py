"""Layers against a naive loop of hooks and means, blocks of networks whose blocks are known."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penult.cli.values import layers_of
from penult.data import source as source_module
from penult.data.source import Pass
from penult.data.transform import Transform
from penult.errors import InputError
from penult.features.features import Features
from penult.features.layers import LayerTap, collect_layers, find_blocks, find_layers
from penult.network.calling import evaluating
from penult.network.find import find_head
from penult.storage import read_json

RGB = Transform(mean=(0.5,) * 3, std=(0.25,) * 3)
N = 30


def images(n: int = N, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (n, side, side, 3), dtype=np.uint8), np.arange(n) % 3


class Residual(nn.Module):
    """With an activation of its own that runs twice, the second time in place."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n, n, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(n)
        self.conv2 = nn.Conv2d(n, n, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(n)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        activated: Tensor = self.relu(out)
        return activated


class Convolutional(nn.Module):
    # Eight channels on images of 8 × 8: shapes alone would not tell which axis is which.
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stage1 = nn.Sequential(Residual(8), Residual(8))
        self.down = nn.Conv2d(8, 12, 2, stride=2)
        self.stage2 = nn.Sequential(Residual(12))
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.down(self.stage1(F.relu(self.stem(x)))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class TokenBlock(nn.Module):
    """Gives a tuple, as the layers of some libraries do."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n)
        self.qkv = nn.Linear(n, 3 * n)
        self.proj = nn.Linear(n, n)
        self.mlp = nn.Sequential(nn.Linear(n, 2 * n), nn.GELU(), nn.Linear(2 * n, n))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v))
        return x + self.mlp(x), None


class Transformer(nn.Module):
    # 16 tokens of 16 features.
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 2, stride=2)
        self.layers = nn.ModuleList([TokenBlock(16), TokenBlock(16)])
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        for layer in self.layers:
            x, _ = layer(x)
        logits: Tensor = self.fc(x[:, 0])
        return logits


class LastBlock(nn.Module):
    """Channels last, 8 × 8 positions of 8 channels."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(n, 2 * n)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(2 * n, n)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.fc2(self.act(self.fc1(x)))
        return x + changed


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(LastBlock(8), LastBlock(8))
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x).movedim(1, -1))
        logits: Tensor = self.fc(x.mean((1, 2)))
        return logits


class Odd(nn.Module):
    """Layers that cannot be measured beside ones that can."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU())
        self.pair = Pair()
        self.fold = nn.Flatten(0, 1)
        self.unused = nn.Linear(2, 2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.fold(x)
        logits: Tensor = self.fc(self.pair(self.body(x))["z"])
        return logits


class Pair(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"z": x}


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str], tuple[int, ...]]] = {
    "convolutional": (Convolutional, ["stage1.0", "stage1.1", "stage2.0"], (2, 3)),
    "transformer": (Transformer, ["layers.0", "layers.1"], (1,)),
    "channels last": (ChannelsLast, ["blocks.0", "blocks.1"], (1, 2)),
}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = NETWORKS[name][0]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    return model


def inputs_of(pixels: np.ndarray) -> Tensor:
    return ((torch.tensor(pixels) / 255 - 0.5) / 0.25).movedim(-1, 1)


def naive(model: nn.Module, names: Sequence[str], axes: tuple[int, ...]) -> dict[str, Tensor]:
    """Means of the layers' last outputs, image by image; `axes` are those of the positions."""
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    with evaluating(model), torch.no_grad():
        for x in inputs_of(images()[0]):
            seen: dict[str, Tensor] = {}

            def keep(name: str, seen: dict[str, Tensor] = seen) -> Any:
                def hook(module: nn.Module, args: Any, output: Any) -> None:
                    values = output[0] if isinstance(output, tuple) else output
                    seen[name] = values.clone()

                return hook

            handles = [model.get_submodule(n).register_forward_hook(keep(n)) for n in names]
            model(x[None])
            for handle in handles:
                handle.remove()
            for name, values in seen.items():
                rows[name].append(values.mean(axes)[0] if values.ndim > 2 else values[0])
    return {name: torch.stack(parts) for name, parts in rows.items()}


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def state(model: nn.Module) -> dict[str, bytes]:
    return {name: v.numpy().tobytes() for name, v in model.state_dict().items()}


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def gather(model: nn.Module, layers: Any, folder: Path, **options: Any) -> dict[str, Features]:
    how = options.pop("how", Pass(batch_size=7))
    data = options.pop("data", images())
    return collect_layers(model, data, layers, folder, transform=RGB, how=how, **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_equal_a_loop_with_hooks(name: str, tmp_path: Path) -> None:
    _, blocks, axes = NETWORKS[name]
    model = build(name)
    before, flags = state(model), [m.training for m in model.modules()]
    found = gather(model, "all", tmp_path)
    assert list(found) == blocks
    for layer, expected in naive(model, blocks, axes).items():
        z, labels = found[layer].arrays()
        torch.testing.assert_close(z, expected, atol=1e-6, rtol=1e-5)
        assert labels.tolist() == images()[1].tolist()
        assert found[layer].head is None
        assert found[layer].n_classes == 3
    assert state(model) == before
    assert [m.training for m in model.modules()] == flags
    assert n_hooks(model) == 0


def test_layers_of_any_kind_come_in_the_order_of_execution(tmp_path: Path) -> None:
    model = build("convolutional")
    names = ["fc", "stage1.1.relu", "stage1.0.bn2", "stem", "stage1"]
    found = gather(model, names, tmp_path)
    assert list(found) == ["stem", "stage1.0.bn2", "stage1.1.relu", "stage1", "fc"]
    expected = naive(model, names, (2, 3))
    for layer, features in found.items():
        torch.testing.assert_close(features.arrays()[0], expected[layer], atol=1e-6, rtol=1e-5)
    # The last of an activation's calls, and a norm's output before it is added to in place.
    assert torch.equal(found["stage1.1.relu"].arrays()[0], found["stage1"].arrays()[0])


def test_the_layer_before_the_head_and_the_classes_that_the_network_gives(tmp_path: Path) -> None:
    model = build("convolutional")
    (features,) = gather(model, ["stage2"], tmp_path, class_names=["a", "b", "c"]).values()
    assert features.class_names == ("a", "b", "c")
    head = find_head(model, torch.zeros(2, 3, 8, 8))
    for block in features:
        assert block.predicted is not None
        assert torch.equal(head(block.features).argmax(1), block.predicted)


def test_the_tap_takes_its_hooks_away_after_an_error(tmp_path: Path) -> None:
    model = build("convolutional")
    x = torch.randn(2, 3, 8, 8)
    tap = LayerTap(model, find_head(model, x), find_layers(model, x, ["stage1.0", "fc"]))
    with tap:
        assert n_hooks(model) > 0
    assert n_hooks(model) == 0
    with pytest.raises(RuntimeError, match="expected input"), tap:
        model(torch.randn(2, 4, 8, 8))
    assert n_hooks(model) == 0

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gather(model, "all", tmp_path, progress=interrupt)
    assert n_hooks(model) == 0


def test_no_hook_stays_where_a_shard_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "SHARD_ROWS", 7)

    def full(*_: Any) -> None:
        raise InputError("the disk is full")

    monkeypatch.setattr("penult.features.shard_folder.write_shard", full)
    model = build("convolutional")
    with pytest.raises(InputError, match="the disk is full") as caught:
        gather(model, "all", tmp_path)
    assert n_hooks(model) == 0
    del caught


@pytest.mark.parametrize("stop_at", [7, 14, 28])
def test_an_interrupted_pass_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr(source_module, "SHARD_ROWS", 7)
    model = build("transformer")
    heard: list[int] = []

    def stop(done: int, total: int) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    gather(model, "all", tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        gather(model, "all", tmp_path / "cut", progress=stop)
    # As if it had stopped between the shards of two layers.
    if stop_at > 7:
        (tmp_path / "cut" / "layers.1" / "shard-00000.safetensors").unlink()
    gather(model, "all", tmp_path / "cut", progress=lambda done, total: heard.append(done))
    assert heard == [7, 14, 21, 28, 30]
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    heard.clear()
    gather(model, ["layers.1"], tmp_path / "cut", progress=lambda done, _: heard.append(done))
    assert not heard, "what is there is not collected again"
    shutil.rmtree(tmp_path / "cut" / "layers.0")
    gather(model, "all", tmp_path / "cut")
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_another_network_is_refused(tmp_path: Path) -> None:
    gather(build("transformer"), "all", tmp_path)
    model = build("transformer")
    nn.init.zeros_(model.get_parameter("fc.bias"))
    with pytest.raises(InputError, match="an analysis that differs in its network "):
        gather(model, "all", tmp_path)


def test_a_disk_too_small_and_a_file_in_the_place_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(InputError, match=r"the features of 30 samples need 0\.0 MB and the disk"):
        gather(build("transformer"), "all", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file: expected a folder for the layers"):
        gather(build("transformer"), "all", tmp_path / "file")


def overflowing() -> tuple[nn.Module, tuple[np.ndarray, np.ndarray]]:
    """A network whose second block overflows on the image 11, and nothing before it."""
    model = build("channels last")
    with torch.no_grad():
        for name in ("blocks.1.fc1", "blocks.1.fc2"):
            model.get_parameter(f"{name}.weight").zero_()
            model.get_parameter(f"{name}.bias").zero_()
        model.get_parameter("blocks.1.fc1.weight")[0] = 1e18
        model.get_parameter("blocks.1.fc2.weight")[4] = 1e18
        model.get_parameter("stem.weight").abs_()
        model.get_parameter("blocks.0.fc2.weight").zero_()
    pixels, labels = images()
    pixels[:] = 128
    pixels[11] = 255
    return model, (pixels, labels)


def test_a_sample_that_is_not_finite_in_one_layer_is_left_out_of_all(tmp_path: Path) -> None:
    model, data = overflowing()
    head = find_head(build("channels last"), torch.zeros(2, 3, 8, 8))
    options = {"data": data, "head": head}
    for name, n_samples in (("blocks.0", N), ("blocks.1", N - 1)):
        alone = gather(model, [name], tmp_path, **options)
        assert alone[name].n_samples == n_samples
    found = gather(model, "all", tmp_path, **options)
    for name, features in found.items():
        ids = [i for block in features for i in block.ids]
        assert ids == [str(i) for i in range(N) if i != 11]
        faults = read_json(tmp_path / name / "index.json")["faults"]
        assert faults["named"] == [["11", "feature 4 of layer blocks.1 is inf"]]
    strict = Pass(batch_size=7, strict=True)
    message = r"feature 4 of layer blocks\.1 of sample 11 is inf: expected finite features"
    with pytest.raises(InputError, match=message):
        gather(model, "all", tmp_path / "strict", how=strict, **options)


def test_half_precision_gives_float32_rows(tmp_path: Path) -> None:
    model = build("convolutional")
    how = Pass(batch_size=7, dtype=torch.bfloat16)
    (features,) = gather(model, ["stage1.0"], tmp_path, how=how).values()
    expected = naive(model, ["stage1.0"], (2, 3))["stage1.0"]
    z, _ = features.arrays()
    assert z.dtype == torch.float32
    assert not torch.equal(z, z.bfloat16().float()), "the mean is not rounded to bfloat16"
    torch.testing.assert_close(z, expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["stage1.2"], r"no layer stage1\.2: the nearest names are stage1\.1, stage1\.0"),
        (["relu"], r"no layer relu: the nearest names are stage1\.0\.relu, stage1\.1\.relu"),
        (["fc", "stage3", "xyz"], r"no layer stage3: .* stage\d, .*; no layer xyz: it has stem, "),
        ([""], r"no layer \(no name\): it has stem, "),
        ([], "no layer is named: expected names, or `all` for every block"),
    ],
)
def test_layers_that_do_not_exist(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_layers(build("convolutional"), torch.zeros(2, 3, 8, 8), names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unused", r"layer unused \(Linear\) does not run when the network does"),
        ("pair", "layer pair gives no feature map, .* of 2 samples, but dict: name a layer inside"),
        ("fold", r"layer fold gives no feature map, .* but float32 \(6, 8, 8\)"),
    ],
)
def test_layers_that_cannot_be_measured(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_layers(Odd(), torch.zeros(2, 3, 8, 8), [name])


def test_what_a_tuple_holds_is_named() -> None:
    class Names(nn.Module):
        def forward(self, x: Tensor) -> tuple[str, Tensor]:
            return "z", x

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.names = Names()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.names(x)[1])
            return logits

    with pytest.raises(InputError, match=r"but tuple of str, float32 \(2, 4\)"):
        find_layers(Network(), torch.zeros(2, 4), ["names"])


def test_outputs_that_change_between_runs_are_refused() -> None:
    model = build("convolutional")
    x = torch.randn(2, 3, 8, 8)
    layers = find_layers(model, x, ["stem"])
    with pytest.raises(InputError, match=r"stem gives no .* of 5 samples, but float32 \(2, 8"):
        layers[0].pooled(torch.zeros(2, 8, 4, 4), 5)
    with pytest.raises(InputError, match=r"stem gave 8 features .* now gives float32 \(2, 9"):
        layers[0].pooled(torch.zeros(2, 9, 4, 4), 2)
    tap = LayerTap(model, find_head(model, x), layers)
    with tap, pytest.raises(InputError, match="layer stem did not run in the network's last run"):
        _ = tap.features


def test_a_network_without_blocks_gives_its_activations() -> None:
    x = torch.zeros(2, 3, 8, 8)
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5, 6), nn.ReLU(), nn.Dropout(),
        nn.Linear(6, 3),
    )  # fmt: skip
    assert find_blocks(plain, x) == ["2", "5", "9"]
    with pytest.raises(InputError, match="no layer before the one that gives its output"):
        find_blocks(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), x)
    with pytest.raises(InputError, match=r"does not run on the example \(float32 \(2, 4\)\)"):
        find_blocks(plain, torch.zeros(2, 4))


def test_nested_sequences_are_blocks_where_they_hold_several_layers() -> None:
    def unit(a: int, b: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(a, b, 1), nn.ReLU(), nn.Conv2d(b, b, 1), nn.ReLU())

    model = nn.Sequential(unit(3, 4), unit(4, 5), nn.Flatten(), nn.Linear(320, 3))
    assert find_blocks(model, torch.zeros(2, 3, 8, 8)) == ["0", "1"]


class Concatenated(nn.Module):
    """Eight channels on 8 × 8 positions become eleven."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.join = Join()
        self.fc = nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.join(self.conv(x), x).mean((2, 3)))
        return logits


class Join(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a, b], 1)


def test_a_width_that_happens_to_be_the_number_of_channels() -> None:
    (layer,) = find_layers(Concatenated(), torch.randn(2, 3, 8, 8), "join")
    assert (layer.n_features, layer.axis) == (11, 1)


def test_a_vector_is_kept_as_its_layer_gave_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    found = gather(model, ["1", "2"], tmp_path)
    before, after = (features.arrays()[0] for features in found.values())
    assert bool((before < 0).any())
    assert torch.equal(before.relu(), after)


class Pointwise(nn.Sequential):
    def __init__(self, n: int) -> None:
        super().__init__(nn.Conv2d(n, n, 1), nn.ReLU(), nn.Conv2d(n, n, 1))


class InPlace(nn.Module):
    """Adds its input to the very tensor that the last part inside it gave."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.parts = nn.Sequential(Pointwise(n), nn.ReLU(), Pointwise(n))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.parts(x)
        out += x
        return out


class Stage(nn.Module):
    """Blocks, and something after them."""

    def __init__(self, n: int, after: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([InPlace(n), InPlace(n)])
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        end: Tensor = self.after(x)
        return end


def test_stages_are_told_from_blocks() -> None:
    stages = nn.Sequential(Stage(3, nn.Conv2d(3, 4, 2, 2)), Stage(4, nn.Identity()))
    model = nn.Sequential(stages, nn.Flatten(), nn.Linear(64, 3))
    expected = [f"0.{s}.blocks.{b}" for s in (0, 1) for b in (0, 1)]
    assert find_blocks(model, torch.randn(2, 3, 8, 8)) == expected


@pytest.mark.parametrize(("name", "n"), [("resnet20", 3), ("resnet56", 9)])
def test_blocks_of_the_cifar_resnets(repository: Path, name: str, n: int) -> None:
    model = cifar(repository, name)
    blocks = find_blocks(model, torch.randn(2, 3, 32, 32))
    assert blocks == [f"layer{s}.{i}" for s in (1, 2, 3) for i in range(n)]


def cifar(repository: Path, name: str) -> nn.Module:
    spec = importlib.util.spec_from_file_location("r", repository / "bench" / "cifar_resnet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    model: nn.Module = getattr(module, name)()
    return model


def test_all_blocks_of_resnet20(repository: Path, tmp_path: Path) -> None:
    model = cifar(repository, "resnet20").eval()
    found = gather(model, "all", tmp_path, data=images(N, 32))
    assert [f.n_features for f in found.values()] == [16] * 3 + [32] * 3 + [64] * 3
    with torch.no_grad():
        x = F.relu(model.bn1(model.conv1(inputs_of(images(N, 32)[0]))))  # type: ignore[operator]
        for name, features in found.items():
            x = model.get_submodule(name)(x)
            z, _ = features.arrays()
            torch.testing.assert_close(z, x.mean((2, 3)), atol=1e-4, rtol=1e-4)


TIMM_SWIN = {"img_size": 64, "window_size": 4, "depths": (2, 2, 2, 2), "embed_dim": 24}
LIBRARIES: dict[str, tuple[str, dict[str, Any], list[str] | int, int]] = {
    "tv resnet18": (
        "torchvision", {}, [f"layer{s}.{i}" for s in (1, 2, 3, 4) for i in (0, 1)], 1,
    ),
    "tv mobilenet_v2": ("torchvision", {}, [f"features.{i}" for i in range(1, 18)], 1),
    "tv mobilenet_v3_small": ("torchvision", {}, [f"features.{i}" for i in range(1, 12)], 1),
    "tv densenet121": ("torchvision", {}, [f"features.denseblock{i}" for i in (1, 2, 3, 4)], 1),
    "tv convnext_tiny": ("torchvision", {}, 18, 1),
    "tv googlenet": ("torchvision", {"init_weights": False}, 9, 1),
    "tv vgg11_bn": ("torchvision", {}, [
        *(f"features.{i}" for i in (2, 6, 10, 13, 17, 20, 24, 27)), "classifier.2", "classifier.5",
    ], 1),
    "timm resnet18": ("timm", {}, [f"layer{s}.{i}" for s in (1, 2, 3, 4) for i in (0, 1)], 1),
    "timm deit_tiny_patch16_224": (
        "timm", {"img_size": 64, "depth": 3}, [f"blocks.{i}" for i in range(3)], -1,
    ),
    "timm swin_tiny_patch4_window7_224": (
        "timm", TIMM_SWIN, [f"layers.{s}.blocks.{i}" for s in range(4) for i in (0, 1)], -1,
    ),
    "timm mixer_s32_224": ("timm", {"img_size": 64}, [f"blocks.{i}" for i in range(8)], -1),
    "timm ghostnet_050": ("timm", {}, 16, 1),
}  # fmt: skip


@pytest.mark.parametrize("architecture", LIBRARIES)
def test_blocks_of_the_libraries(architecture: str) -> None:
    library, options, expected, axis = LIBRARIES[architecture]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    from penult.network.load import import_torchvision

    # First, since timm imports it too.
    import_torchvision()
    name = architecture.split()[1]
    make: Any = partial(importlib.import_module("timm").create_model, name)
    if library == "torchvision":
        make = getattr(importlib.import_module("torchvision.models"), name)
    torch.manual_seed(0)
    model = make(num_classes=7, **options)
    x = torch.randn(2, 3, 64, 64)
    layers = find_layers(model, x)
    names = [layer.name for layer in layers]
    assert names == expected if isinstance(expected, list) else len(names) == expected
    assert all(layer.axis == axis for layer in layers if not layer.name.startswith("classifier"))
    with LayerTap(model, find_head(model, x), layers) as tap, evaluating(model), torch.no_grad():
        model(x)
        assert tap.features.shape == (2, tap.n_features)
    assert n_hooks(model) == 0


def test_what_the_command_line_may_say() -> None:
    assert layers_of(["a", "b"], None) == ["a", "b"]
    assert layers_of(None, "all") == "all"
    with pytest.raises(InputError, match="give --layer NAME, once or more, or --layers all"):
        layers_of(None, None)
    with pytest.raises(InputError, match="--layers: expected all, found 'fc'; one layer is --l"):
        layers_of(None, "fc")
    with pytest.raises(InputError, match="--layer and --layers all exclude each other"):
        layers_of(["a"], "all")

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from penult.data import source as module
from penult.data.source import Pass
from penult.data.transform import Transform
from penult.errors import InputError
from penult.features.collect import collect, features_shards
from penult.features.features import Features
from penult.features.influence import Evidence
from penult.features.shard_folder import ShardFolder
from penult.network.find import find_head
from penult.storage import read_json

GREY = Transform(mean=(0.5,), std=(0.25,))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.drop(self.body(x)))
        return logits


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def images(n: int = 50) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (n, 8, 8), dtype=np.uint8), np.arange(n) % 3


def naive_features(net: Net) -> Tensor:
    pixels, _ = images()
    with torch.no_grad():
        rows = [net.body(((torch.tensor(p) / 255 - 0.5) / 0.25)[None, None])[0] for p in pixels]
    return torch.stack([row.float() for row in rows])


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_features_equal_a_loop_over_images(net: Net) -> None:
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    features = collect(net, images(), transform=GREY, how=Pass(batch_size=7))
    z, labels = features.arrays()
    torch.testing.assert_close(z, naive_features(net), atol=1e-6, rtol=1e-5)
    assert labels.tolist() == images()[1].tolist()
    head = features.require_head()
    assert (head.name, head.verified) == ("fc", True)
    expected = (head(naive_features(net)).argmax(1) == labels).double().mean()
    assert features.dense_accuracy() == pytest.approx(float(expected))
    assert net.training
    assert net.drop.training
    assert not list(net.fc._forward_hooks)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_folder_and_memory_hold_the_same(net: Net, tmp_path: Path) -> None:
    how = Pass(batch_size=7)
    memory = collect(net, images(), transform=GREY, how=how)
    folder = collect(net, images(), transform=GREY, how=how, out=tmp_path / "f")
    for a, b in zip(memory.arrays(), folder.arrays(), strict=True):
        assert torch.equal(a, b)
    assert folder.dense_accuracy() == memory.dense_accuracy()
    assert [name for block in folder.blocks() for name in block.ids] == [str(i) for i in range(50)]


def test_a_loader_of_ready_batches_gives_the_same(net: Net) -> None:
    pixels, labels = images()
    ready = ((torch.tensor(pixels) / 255 - 0.5) / 0.25)[:, None]
    data = TensorDataset(ready, torch.tensor(labels))
    features = collect(net, DataLoader(data, batch_size=7))
    torch.testing.assert_close(features.arrays()[0], naive_features(net), atol=1e-6, rtol=1e-5)
    with pytest.raises(InputError, match="the DataLoader shuffles or samples: give one with"):
        collect(net, DataLoader(data, batch_size=7, shuffle=True))


def test_a_pass_over_a_loader_goes_on_only_over_the_same_batches(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penult.data.source.SHARD_ROWS", 14)
    pixels, labels = images()
    ready = ((torch.tensor(pixels) / 255 - 0.5) / 0.25)[:, None]
    how = Pass(batch_size=7)

    def run(values: torch.Tensor, out: str, stop: int | None = None) -> Features:
        def heard(done: int, total: int) -> None:
            if stop is not None and done >= stop:
                raise KeyboardInterrupt

        loader = DataLoader(TensorDataset(values, torch.tensor(labels)), batch_size=7)
        return collect(net, loader, how=how, out=tmp_path / out, progress=heard)

    whole = run(ready, "whole").arrays()
    changed = ready.clone()
    changed[14:21] += 1  # the first batch, by which the data are known, stays what it was
    with pytest.raises(KeyboardInterrupt):
        run(ready, "cut", stop=35)
    with pytest.raises(InputError, match="batch 2 of the DataLoader is not what it was when the p"):
        run(changed, "cut")
    again = run(ready, "cut").arrays()
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()


@pytest.mark.parametrize("stop_at", [1, 3, 5, 7])
def test_an_interrupted_pass_goes_on_to_the_same_bytes(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr(module, "SHARD_ROWS", 16)
    how = Pass(batch_size=7)
    calls: list[int] = []

    def run(out: str, stop: int | None) -> None:
        def heard(done: int, total: int) -> None:
            calls.append(done)
            if stop is not None and done >= stop * how.batch_size:
                raise KeyboardInterrupt

        collect(net, images(), transform=GREY, how=how, out=tmp_path / out, progress=heard)

    run("whole", None)
    with pytest.raises(KeyboardInterrupt):
        run("cut", stop_at)
    calls.clear()
    run("cut", None)
    assert calls[0] == 14 * (max(0, stop_at - 1) // 2) + 7, "what was on the disk is not run again"
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    assert len(digest(tmp_path / "whole")) == 4 + 2


def test_sums_over_the_blocks_do_not_depend_on_an_interruption(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD_ROWS", 16)
    how = Pass(batch_size=7, store=torch.float16)
    features = collect(net, images(), transform=GREY, how=how, out=tmp_path / "first")
    head = features.require_head()

    def sums(out: Path) -> Evidence:
        evidence = Evidence.zeros(head.weight, [1, 2])
        shards = ShardFolder(out, head, None, torch.float16, {})
        shards.fill(features_shards(features), lambda b: evidence.update(b.features, b.labels))
        return evidence

    fresh, again = sums(tmp_path / "second"), sums(tmp_path / "second")
    assert torch.equal(fresh.moments.products, again.moments.products)
    assert torch.equal(fresh.top_counts.counts, again.top_counts.counts)
    assert fresh.moments.n_samples == 50


def test_a_folder_of_another_network_or_data_is_refused(net: Net, tmp_path: Path) -> None:
    collect(net, images(), transform=GREY, out=tmp_path / "f")
    other = Net()
    with pytest.raises(InputError, match="an analysis that differs in its network "):
        collect(other, images(), transform=GREY, out=tmp_path / "f")
    with pytest.raises(InputError, match="an analysis that differs in its data "):
        collect(net, images(40), transform=GREY, out=tmp_path / "f")


def test_loaders_that_do_not_fit_are_refused(net: Net) -> None:
    ready = torch.rand(6, 1, 8, 8)
    for data, message in (
        (TensorDataset(ready), "found float32"),
        (TensorDataset(ready, torch.rand(6)), r"found torch.float32 .*, torch.float32 \(2,\)"),
        (TensorDataset(ready, torch.full((6, 3), 2)), r"torch.int64 \(2, 3\)"),
    ):
        with pytest.raises(InputError, match=message.replace("found float32", "found torch.float")):
            collect(net, DataLoader(data, batch_size=2))
    loader = DataLoader(TensorDataset(ready), batch_size=2)
    assert collect(net, loader, how=Pass(labels="predicted")).n_samples == 6
    with pytest.raises(InputError, match="images are ready: it takes no transform"):
        collect(net, loader, transform=GREY)


def test_half_precision_store_rounds_and_halves(net: Net, tmp_path: Path) -> None:
    how = Pass(store=torch.float16)
    z, _ = collect(net, images(), transform=GREY, how=how, out=tmp_path / "f").arrays()
    assert torch.equal(z, z.half().float())
    torch.testing.assert_close(z, naive_features(net), atol=1e-3, rtol=1e-3)


def test_autocast_leaves_the_network_as_it_is(net: Net) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    z, _ = collect(net, images(), transform=GREY, how=Pass(dtype=torch.bfloat16)).arrays()
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, naive_features(net), atol=0.03, rtol=0.03)
    assert not torch.equal(z, naive_features(net))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_predicted_classes_serve_as_labels(net: Net) -> None:
    features = collect(net, images(), transform=GREY, how=Pass(labels="predicted"))
    z, labels = features.arrays()
    assert torch.equal(features.require_head()(z).argmax(1), labels)
    assert features.dense_accuracy() == 1.0


class Faulty:
    """Two of twelve images cannot be loaded."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        if index in (2, 9):
            raise OSError("broken")
        return images()[0][index], index % 3


def test_faulty_images_are_counted_and_left_out(net: Net, tmp_path: Path) -> None:
    features = collect(net, Faulty(), transform=GREY, how=Pass(batch_size=4), out=tmp_path / "f")
    assert features.n_samples == 10
    expected = naive_features(net)[[i for i in range(12) if i not in (2, 9)]]
    torch.testing.assert_close(features.arrays()[0], expected, atol=1e-6, rtol=1e-5)
    text = (tmp_path / "f" / "index.json").read_text()
    assert '"n_faults": 2' in text
    assert "broken" in text
    with pytest.raises(InputError, match=r"2: cannot be loaded \(OSError: broken\)"):
        collect(net, Faulty(), transform=GREY, how=Pass(batch_size=4, strict=True))


def test_labels_out_of_range_name_the_sample(net: Net) -> None:
    pixels, labels = images()
    labels[11] = 3
    with pytest.raises(InputError, match=r"labels must lie in \[0, 3\).*found 3 for 11"):
        collect(net, (pixels, labels), transform=GREY)


def test_features_that_are_not_finite_name_image_and_feature(net: Net, tmp_path: Path) -> None:
    with torch.no_grad():
        net.get_parameter("body.0.weight")[4] = 1e38
    pixels, labels = images()
    pixels[:] = 128
    pixels[11] = 255
    head = find_head(Net(), torch.zeros(1, 1, 8, 8))
    with pytest.raises(InputError, match="feature 4 of sample 11 is inf: expected finite"):
        collect(net, (pixels, labels), head, transform=GREY, how=Pass(strict=True))
    features = collect(net, (pixels, labels), head, transform=GREY, out=tmp_path / "f")
    ids = [name for block in features.blocks() for name in block.ids]
    assert ids == [str(i) for i in range(50) if i != 11]
    assert features.arrays()[1].tolist() == [i % 3 for i in range(50) if i != 11]
    index = read_json(tmp_path / "f" / "index.json")
    assert index["faults"]["n_faults"] == 1
    assert index["faults"]["named"] == [["11", "feature 4 is inf"]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch size must be at least 1, found 0"),
        ({"workers": -1}, "workers must be at least 0, found -1"),
        ({"dtype": torch.float64}, "dtype must be float32, bfloat16 or float16"),
        ({"store": torch.bfloat16}, "features are stored as float32 or float16"),
        ({"labels": "none"}, "labels must be 'given' or 'predicted', found 'none'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pass(**settings)


def test_features_at_hand_fill_a_folder(tmp_path: Path) -> None:
    features = Features.of(torch.rand(20, 4), torch.arange(20) % 2, torch.randn(2, 4))
    shards = ShardFolder(tmp_path / "f", features.require_head(), None, torch.float32, {"a": 1})
    shards.fill(features_shards(features))
    found = Features.open(tmp_path / "f")
    assert torch.equal(found.arrays()[0], features.arrays()[0])
    other = ShardFolder(tmp_path / "f", features.require_head(), None, torch.float32, {"a": 2})
    message = r"differs in its a \(1; now 2\): choose another folder, or delete this one$"
    with pytest.raises(InputError, match=message):
        other.fill(features_shards(features))


class Reshaping(nn.Module):
    """A network that refuses batches of some sizes."""

    def __init__(self, accepts: Callable[[int], bool]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 3)
        self._accepts = accepts

    def forward(self, x: Tensor) -> Tensor:
        if not self._accepts(len(x)):
            raise RuntimeError(f"shape '[4, -1]' is invalid for input of size {len(x)}")
        logits: Tensor = self.fc(x.flatten(1)[:, :4])
        return logits


def test_a_last_batch_that_the_network_refuses_is_filled_up() -> None:
    data = images(9)
    model = Reshaping(lambda n: n != 1)
    expected = collect(Reshaping(lambda _: True), data, transform=GREY, how=Pass(batch_size=3))
    found = collect(model, data, transform=GREY, how=Pass(batch_size=4))
    a, b = (torch.cat([block.features for block in one.blocks()]) for one in (found, expected))
    assert torch.allclose(a, b)
    assert found.n_samples == 9


def test_a_batch_that_the_network_refuses_ends_in_one_line() -> None:
    model = Reshaping(lambda n: n <= 4)
    with pytest.raises(
        InputError, match="does not run on a batch of float32 .16, 1, 8, 8.: Runtim"
    ):
        collect(
            model,
            images(40),
            find_head(model, torch.rand(4, 1, 8, 8)),
            transform=GREY,
            how=Pass(batch_size=16),
        )


@pytest.mark.parametrize(("factor", "warned"), [(1.0, False), (1e-6, True)])
def test_float16_that_rounds_the_logits_away_is_said(
    net: Net, factor: float, warned: bool, tmp_path: Path
) -> None:
    with torch.no_grad():
        for parameter in net.body.parameters():
            parameter.mul_(factor)
        net.fc.weight.div_(factor)
    how = Pass(batch_size=16, store=torch.float16)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        collect(net, images(), transform=GREY, how=how, out=tmp_path / "out")
    assert any("too coarsely" in str(one.message) for one in said) == warned


def test_a_feature_beyond_float16_is_named_with_the_way_out(net: Net, tmp_path: Path) -> None:
    with torch.no_grad():
        for parameter in net.body.parameters():
            parameter.mul_(1e6)
    how = Pass(batch_size=16, store=torch.float16)
    with pytest.raises(InputError, match=r"feature \d of sample \d+ is .*--store float32"):
        collect(net, images(), transform=GREY, how=how, out=tmp_path / "out")


def test_batch_dependence_is_said_before_the_pass(net: Net) -> None:
    net.body[1] = nn.BatchNorm2d(6, track_running_stats=False)
    with pytest.warns(UserWarning, match="depend on the other images of its batch .BatchNorm2d"):
        collect(net.eval(), images(), transform=GREY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collect(net, images(), transform=GREY, how=Pass(batch_size=1))

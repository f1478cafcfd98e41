from __future__ import annotations

import argparse
import gzip
import json
import os
import pickle
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from penult.errors import InputError
from penult.network.checkpoint import read_checkpoint
from penult.network.state import check_fit, load_weights
from penult.network.weight_sets import find_state

FILE = Path("weights.pt")


class Evil:
    """A pickle that creates the file `ran` when it is read with trust."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.ran),)


def network(n_classes: int = 10, width: int = 4) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, width, 3),
            bn=nn.BatchNorm2d(width),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(width, n_classes),
        )
    )


def load(model: nn.Module, path: Path, *, trust: bool = False) -> None:
    load_weights(model, read_checkpoint(path, trust=trust), path, "num_classes")


def assert_equal(model: nn.Module, other: nn.Module) -> None:
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())


@pytest.fixture
def trained() -> nn.Sequential:
    """A network whose buffers too differ from those of a new one."""
    model = network()
    model(torch.randn(8, 3, 6, 6))
    return model


def test_formats_are_read_to_the_bit(trained: nn.Module, tmp_path: Path) -> None:
    state = trained.state_dict()
    torch.save(state, tmp_path / "zip.pt")
    torch.save(state, tmp_path / "legacy.th", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "safe.safetensors")
    torch.save({name: value.half() for name, value in state.items()}, tmp_path / "half.bin")
    for name in ("zip.pt", "legacy.th", "safe.safetensors"):
        model = network()
        load(model, tmp_path / name)
        assert_equal(model, trained)
    model = network()
    load(model, tmp_path / "half.bin")
    assert_equal(model, trained.half().float())


def test_a_loaded_network_does_not_need_its_file_any_more(
    trained: nn.Module, tmp_path: Path
) -> None:
    torch.save(trained.state_dict(), tmp_path / "a.pt")
    model = network()
    load(model, tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(b"")
    assert_equal(model, trained)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.5},
        lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda state: {"run": {"nets": {"student": state}}},
        lambda state: state | {"epoch": 3},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
        lambda state: {"net": {f"backbone.net.{name}": value for name, value in state.items()}},
        lambda state: {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")},
    ],
)
def test_weights_are_found_wherever_they_are(wrap: Any, trained: nn.Module, tmp_path: Path) -> None:
    torch.save(wrap(trained.state_dict()), tmp_path / "a.pt")
    model = network()
    model.load_state_dict({"bn.num_batches_tracked": torch.tensor(1)}, strict=False)
    load(model, tmp_path / "a.pt")
    assert_equal(model, trained)


def naive_states(content: Mapping[str, Any], own: set[str]) -> list[dict[str, Tensor]]:
    """All that have the most of `own`: all prefixes tried on all mappings, one by one.

    Prefixes of the network's own names, where most of it lies behind them, are put in front; the
    shortest of them that does as well counts.
    """
    fits: list[tuple[int, int, dict[str, Tensor]]] = []
    stack: list[Mapping[str, Any]] = [content]
    while stack:
        mapping = stack.pop(0)
        stack += [value for value in mapping.values() if isinstance(value, dict)]
        tensors = {name: value for name, value in mapping.items() if isinstance(value, Tensor)}
        prefixes = {name[:end] for name in tensors for end in range(len(name))}
        for prefix in prefixes:
            if prefix and not prefix.endswith("."):
                continue
            for start in ["", *own_prefixes(own)]:
                state = {
                    start + name[len(prefix) :]: value
                    for name, value in tensors.items()
                    if name.startswith(prefix)
                }
                fits.append((len(own & state.keys()), -start.count("."), state))
    most = max((count, start) for count, start, _ in fits) if fits else (0, 0)
    return [state for count, start, state in fits if (count, start) == most and count]


def own_prefixes(own: set[str]) -> set[str]:
    starts = {name[: i + 1] for name in own for i, c in enumerate(name) if c == "."}
    return {s for s in starts if 2 * sum(name.startswith(s) for name in own) > len(own)}


names = st.lists(st.sampled_from(["a", "b", "a.b", "b.a", "a.a.b"]), min_size=1, max_size=3)
dotted = names.map(".".join)
tensors = st.builds(lambda: torch.zeros(1))
states = st.dictionaries(dotted, tensors, max_size=6)


@given(
    content=st.dictionaries(dotted, st.one_of(tensors, states, st.just(3)), max_size=5),
    own=st.sets(dotted, min_size=1, max_size=6),
)
def test_the_best_fit_is_that_of_a_search_through_everything(
    content: dict[str, Any], own: set[str]
) -> None:
    expected = naive_states(content, own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if expected:
            found = find_state(content, own, FILE)
            assert any(
                found.keys() == one.keys() and all(found[name] is one[name] for name in one)
                for one in expected
            )
        else:
            with pytest.raises(InputError, match="holds (no weights|the weights of another)"):
                find_state(content, own, FILE)


def test_several_sets_that_fit_are_named(trained: nn.Module) -> None:
    state = trained.state_dict()
    content = {"state_dict": state, "state_dict_ema": network().state_dict()}
    with pytest.warns(
        UserWarning,
        match=r"^weights.pt holds several sets of weights that fit: state_dict is taken, "
        r"not state_dict_ema \(--weights-key NAME takes another\)$",
    ):
        found = find_state(content, list(state), FILE)
    assert found["fc.bias"] is state["fc.bias"]


def test_two_networks_in_one_mapping_are_named(trained: nn.Module) -> None:
    state = trained.state_dict()
    both = {f"query.{name}": value for name, value in state.items()}
    both |= {f"keys.{name}": value for name, value in state.items()}
    with (
        pytest.warns(UserWarning, match=r"fit: query is taken, not keys \(--w"),
        pytest.warns(UserWarning, match=r"do not begin with query.: keys.conv.weight, .* more$"),
    ):
        find_state(both, list(state), FILE)


def test_what_lies_beside_the_network_is_named(trained: nn.Module, tmp_path: Path) -> None:
    state: dict[str, Tensor] = {f"model.{n}": value for n, value in trained.state_dict().items()}
    torch.save({"state_dict": state | {"loss.weight": torch.ones(10)}}, tmp_path / "a.ckpt")
    model = network()
    with pytest.warns(UserWarning, match=r"a.ckpt: not used, .* begin with model.: loss.weight$"):
        load(model, tmp_path / "a.ckpt")
    assert_equal(model, trained)


def test_a_mapping_that_holds_itself_ends(trained: nn.Module) -> None:
    content: dict[str, Any] = {"epoch": 1}
    content["self"] = content
    with pytest.raises(InputError, match="holds no weights: expected names with tensors, found di"):
        find_state(content, list(trained.state_dict()), FILE)


def dropped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("conv")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            network(7).state_dict(),
            r"fc.weight is 7 × 4 in the file and 10 × 4 in the network, fc.bias is 7 in the file "
            r"and 10 in the network: the file has 7 classes, the network 10: --set num_classes=7$",
        ),
        (
            network(width=5).state_dict(),
            r"conv.weight is 5 × 3 × 3 × 3 in the file and 4 × 3 × 3 × 3 in the network, conv.bias "
            r"is 5 in the file and 4 in the network and 5 more: expected the weights of this netw",
        ),
        (
            dropped(network().state_dict()),
            r"does not fit the network: 2 missing \(conv.weight, conv.bias\): expected",
        ),
        (
            network().state_dict() | {"extra.weight": torch.ones(1)},
            r"does not fit the network: 1 unexpected \(extra.weight\): expected",
        ),
        (
            dropped(network().state_dict()) | {"a": torch.ones(1), "b": torch.ones(1)},
            r"2 missing \(conv.weight, conv.bias\); 2 unexpected \(a, b\): expected the weights",
        ),
        (
            {f"layer{index}.weight": torch.ones(1) for index in range(9)},
            r"holds the weights of another network: its names are layer0.weight, layer1.weight, "
            r"layer2.weight and 6 more; expected conv.weight, conv.bias, bn.weight and 6 more$",
        ),
        ({"epoch": 3}, "holds no weights: expected names with tensors, found dict$"),
        ([torch.ones(1)], "holds no weights: expected names with tensors, found list$"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    content: object, message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match=message) as caught:
        load(network(), tmp_path / "a.pt")
    assert str(caught.value).startswith(str(tmp_path / "a.pt"))
    assert "\n" not in str(caught.value)


def test_counts_of_batches_may_be_missing() -> None:
    missing = ["layer.bn.num_batches_tracked", "num_batches_tracked"]
    check_fit(FILE, missing, (), (), None)
    with pytest.raises(InputError, match=r"1 missing \(bn.weight\)"):
        check_fit(FILE, [*missing, "bn.weight"], (), (), None)


def test_a_network_that_refuses_its_weights_is_said_in_one_line(tmp_path: Path) -> None:
    class Refusing(nn.Linear):
        def _load_from_state_dict(self, *args: Any) -> None:
            args[-1].append("one\ntwo")

    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "a.pt")
    with pytest.raises(InputError, match="a.pt does not fit the network: RuntimeError: .* one two"):
        load(Refusing(2, 2), tmp_path / "a.pt")


def test_a_lazy_layer_takes_its_shape_from_the_file(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "a.pt")
    model = nn.LazyLinear(2)
    load(model, tmp_path / "a.pt")
    assert model.weight.shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pt", None, "absent.pt not found; expected a checkpoint file$"),
        ("empty.pt", b"", "empty.pt is empty; expected a checkpoint file$"),
        ("text.pt", b"hello this is text", r"text.pt cannot be read as a checkpoint \(is it whole"),
        ("page.pt", b"<html>404</html>", "page.pt cannot be read as a checkpoint"),
        ("a.safetensors", b"hello this is text", "safetensors cannot be read .*header too large$"),
        ("a.pt", b"PK\x03\x04 and no more", "a.pt cannot be read as a checkpoint .*PytorchStream"),
    ],
)
def test_what_is_no_checkpoint_is_said_in_one_line(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder without model.safetensors or pytorch_"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_cut_anywhere_is_said_in_one_line(
    zipped: bool, trust: bool, trained: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in range(1, len(whole) - 1, len(whole) // 40):
        path.write_bytes(whole[:length])
        # Half of a harmless name is a name that nobody knows.
        with pytest.raises(
            InputError, match=r"a.pt cannot be read as a checkpoint|unpickle \S+, and"
        ) as caught:
            read_checkpoint(path, trust=trust)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_malicious_file_is_refused_and_does_not_run(zipped: bool, tmp_path: Path) -> None:
    path, ran = tmp_path / "evil.pt", tmp_path / "ran"
    torch.save({"state_dict": Evil(ran)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        InputError,
        match=r"evil.pt holds more than weights: reading it would unpickle \S+\.mkdir, and that "
        r"can run any code the file brings; give --trust-checkpoint if you trust where it comes",
    ) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not ran.exists()
    read_checkpoint(path, trust=True)
    assert ran.exists()


def test_a_malicious_plain_pickle_does_not_run(tmp_path: Path) -> None:
    path, ran = tmp_path / "evil.pkl", tmp_path / "ran"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Evil(ran), protocol=protocol))
        with pytest.raises(InputError, match=r"evil.pkl (holds more than|cannot be read)"):
            read_checkpoint(path)
        assert not ran.exists()


def test_trust_reads_what_else_was_saved(trained: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"model": trained.state_dict(), "args": argparse.Namespace(epochs=3)}, path)
    model = network()
    with pytest.raises(InputError, match=r"would unpickle argparse\.Namespace, and"):
        load(model, path)
    load(model, path, trust=True)
    assert_equal(model, trained)


def test_trust_reads_a_whole_network(trained: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"net": trained}, path)
    model = network()
    with pytest.raises(InputError, match=r"would unpickle torch\.nn\.modules\S*, and"):
        load(model, path)
    load(model, path, trust=True)
    assert_equal(model, trained)


def test_trust_reads_a_compiled_network(trained: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.zeros(1, 3, 6, 6)
        traced = torch.jit.trace(trained.eval(), example)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, path)
    model = network()
    with pytest.raises(InputError, match=r"would unpickle TorchScript archives, and"):
        load(model, path)
    load(model, path, trust=True)
    assert_equal(model, trained)


# --- contents unlike the suffix ----------------------------------------------------------------


def test_contents_decide_how_a_file_is_read(trained: nn.Module, tmp_path: Path) -> None:
    state = trained.state_dict()
    save_file(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.safetensors")
    torch.save(state, tmp_path / "c.safetensors", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "noending")
    for name in ("a.pt", "b.safetensors", "c.safetensors", "noending"):
        model = network()
        load(model, tmp_path / name)
        assert_equal(model, trained)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.pth", b"weights")


def tarred(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n <!DOCTYPE html><html>", "it is a web page: the download failed or needs a login$"),
        (b"<html><body>Sign in", "it is a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "a pointer of Git LFS .*lfs pull$",
        ),
        (b"\x89HDF\r\n\x1a\n" + b"0" * 50, "an HDF5 file, as Keras writes them"),
        (gzip.compress(b"weights", mtime=0), "it is compressed: unpack it first$"),
        (b"\x93NUMPY\x01\x00", "it is a NumPy array"),
        (b'{"a": 1}', "it is JSON, but no index with a weight_map"),
        (zipped, "is a zip archive that holds model.pth, and no checkpoint of torch.save: unpack"),
        (tarred, "is an archive that holds model.pth: unpack it first$"),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_other_kinds_of_files_are_named(
    content: Any, message: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def sharded(folder: Path, state: Mapping[str, Tensor]) -> Path:
    """As Hugging Face writes large networks."""
    names = list(state)
    halves = {"model-00001-of-00002.safetensors": names[::2]}
    halves["model-00002-of-00002.safetensors"] = names[1::2]
    for file, inside in halves.items():
        save_file({name: state[name] for name in inside}, folder / file)
    index = {"weight_map": {name: file for file, inside in halves.items() for name in inside}}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    return path


def test_an_index_of_several_files(trained: nn.Module, tmp_path: Path) -> None:
    path = sharded(tmp_path, trained.state_dict())
    for given_path in (path, tmp_path):
        model = network()
        load(model, given_path)
        assert_equal(model, trained)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"names 2 files, of which 1 are not there \(model-00002"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "sub/a.bin", "..", "", "a\\b"])
def test_an_index_reads_nothing_outside_of_its_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(InputError, match="names files that do not lie beside it"):
        read_checkpoint(path)


def test_a_folder_with_a_checkpoint(trained: nn.Module, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "pytorch_model.bin")
    model = network()
    load(model, tmp_path)
    assert_equal(model, trained)


# --- classes of the training script ------------------------------------------------------------

SCRIPT = """
import sys, torch
from torch import nn
from parts import Block, Meter
class Config(dict):
    pass
class Slots:
    __slots__ = ("a",)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.fc = nn.Linear(4, 5)
        self.register_buffer("mean", torch.ones(3))
if __name__ == "__main__":
    torch.manual_seed(3)
    net, slots = Net(), Slots()
    slots.a = 1
    extra = {"meter": Meter(), "config": Config(a=1), "slots": slots, "f": Meter.best}
    torch.save({"state_dict": net.state_dict(), **extra}, "beside.pt")
    torch.save(net, "whole.pt")
    torch.save(net, "old.pt", _use_new_zipfile_serialization=False)
    torch.save(extra | {"trainer": {"model": net}}, "inside.pt")
"""
PARTS = """
from torch import nn
class Meter:
    def __init__(self): self.values = [1, 2]
    def best(self): pass
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
"""


@pytest.fixture(scope="module")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pickled")
    (folder / "train.py").write_text(SCRIPT)
    (folder / "parts.py").write_text(PARTS)
    subprocess.run([sys.executable, "train.py"], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("importable", [False, True])
@pytest.mark.parametrize("name", ["beside", "whole", "old", "inside"])
def test_trust_needs_no_class_of_the_training_script(
    name: str, importable: bool, pickled: Path
) -> None:
    content = read_checkpoint(
        pickled / f"{name}.pt", trust=True, importable=pickled if importable else None
    )
    own = ["block.conv.weight", "block.conv.bias", "fc.weight", "fc.bias", "mean"]
    state = find_state(content, own, FILE)
    torch.manual_seed(3)
    assert list(state) == own or set(state) == set(own)
    assert torch.equal(state["block.conv.weight"], nn.Conv2d(3, 4, 3).weight)
    assert "parts" not in sys.modules


def test_without_trust_no_class_is_looked_for(pickled: Path) -> None:
    with pytest.raises(InputError, match=r"would unpickle \S+, and .*give --trust-checkpoint"):
        read_checkpoint(pickled / "beside.pt", importable=pickled)
    assert "parts" not in sys.modules


def test_arrays_are_weights_too(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"weight": np.ones((2, 3), np.float32), "bias": np.zeros(2, np.float32)}, path)
    model = nn.Linear(3, 2)
    load(model, path, trust=True)
    assert torch.equal(model.weight, torch.ones(2, 3))

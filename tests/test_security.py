"""One test for each attack that docs/security.md names: what is opened runs no code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from command import penult
from penult.errors import InputError
from penult.extras import import_torchvision
from penult.heads.sparse_head import SparseHead
from penult.runs.reopen import Places, images_of, reopen_images, reopen_network
from penult.runs.run import Run
from penult.runs.trust import UntrustedError
from penult.storage import read_json, write_json
from penult.user_code import code_digest
from small_run import NET, images_for

EVIL = """
import pathlib
pathlib.Path("OWNED").touch()
"""
DATA = """
import numpy as np
def data():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3), dtype=np.uint8)
    return pixels, [i % 3 for i in range(30)]
"""


@pytest.fixture(autouse=True)
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has named no code yet; what tests rely on is said on the terminal."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("penult.runs.trust._named", {})
    warnings.simplefilter("always")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `net.py`, `data/` and an honest run of them."""
    return images_for(NET, tmp_path, monkeypatch)


def forged(change: Callable[[dict[str, Any]], None], run: str = "run") -> Run:
    about = read_json(Path(run) / "run.json")
    change(about)
    write_json(Path(run) / "run.json", about)
    return Run.open(run)


def refuse_network(run: Run, message: str, **places: Any) -> None:
    with pytest.raises(UntrustedError, match=message) as caught:
        reopen_network(run, Places(**places))
    assert "\n" not in str(caught.value)
    assert "--network" in str(caught.value)
    assert "--trust-run" in str(caught.value)
    assert not Path("OWNED").exists()


def shift_blame(about: dict[str, Any]) -> None:
    about["network"] |= {"spec": "os:system", "set": ["command=touch OWNED"]}


def test_an_honest_run_opens_its_network_without_a_word(folder: Path) -> None:
    assert reopen_network(Run.open("run"))
    assert penult("explain", "run", "a/00.png", "--no-maps") == 0


@pytest.mark.parametrize("spec", ["os:system", "./os:system", "subprocess:os.system"])
def test_a_dotted_name_is_not_called(folder: Path, spec: str) -> None:
    run = forged(lambda about: about["network"].update(spec=spec, set=["command=touch OWNED"]))
    refuse_network(run, "is not run: ")


@pytest.mark.parametrize(
    "command", [["report", "run"], ["explain", "run", "train:0"], ["tune", "run", "-k", "1"]]
)
def test_no_command_runs_what_a_run_names(
    folder: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    forged(shift_blame)
    status = penult(*command)
    assert status == (2 if command[0] == "tune" else 0)
    assert not Path("OWNED").exists()
    assert "--trust-run" in capsys.readouterr().err


def test_a_run_with_a_net_py_and_its_hash_beside_it_is_not_enough(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is unpacked from a stranger's archive: run, code and matching hashes, all consistent."""
    made = tmp_path_factory.mktemp("stranger")
    for name in ("run", "data"):
        shutil.copytree(folder / name, made / name)
    (made / "net.py").write_text(NET + EVIL)
    # The stranger has analysed it on another computer.
    script = (
        "import sys; from penult.cli.app import main; "
        "sys.argv = 'penult analyze net.py:net data --weights random --out run --overwrite'.split()"
        "; main()"
    )
    elsewhere = {**os.environ, "XDG_STATE_HOME": str(made / "state")}
    subprocess.run([sys.executable, "-c", script], cwd=made, env=elsewhere, check=True)
    (made / "OWNED").unlink()
    monkeypatch.chdir(made)
    refuse_network(Run.open("run"), "you have not named this file in a penult command")
    assert penult("report", "run") == 0
    assert not Path("OWNED").exists()
    # It runs where the user says so, in either way.
    assert reopen_network(Run.open("run"), Places(trust_run=True))
    assert Path("OWNED").exists()
    assert reopen_network(Run.open("run"), Places(network="net.py:net", weights="random"))


def test_code_that_has_changed_since_is_not_run(folder: Path) -> None:
    Path("net.py").write_text(NET + EVIL)
    refuse_network(Run.open("run"), "is not the one that the run was made with")


def test_nor_code_whose_import_from_the_same_folder_has_changed(folder: Path) -> None:
    Path("net.py").write_text("import helper\n" + NET)
    Path("helper.py").write_text("")
    assert penult("analyze", "net.py:net", "data", "--weights", "random", "--out", "two") == 0
    assert reopen_network(Run.open("two"))
    Path("helper.py").write_text(EVIL)
    refuse_network(Run.open("two"), "or a file that it imports")


@pytest.mark.parametrize("change", [{"spec": "net.py:Net"}, {"set": ["danger=1"]}])
def test_trusted_code_is_not_called_in_another_way(folder: Path, change: dict[str, Any]) -> None:
    """The user's own file may hold functions that are no networks, and options that do harm."""
    refuse_network(forged(lambda about: about["network"].update(change)), "is not run: ")


def test_code_inside_the_run_folder_is_not_run(folder: Path) -> None:
    Path("run/net.py").write_text(NET + EVIL)
    digest = code_digest("run/net.py:net")
    run = forged(lambda about: about["network"].update(spec="run/net.py:net", code=digest))
    refuse_network(run, "you have not named this file")


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("timm:hf-hub:evil/net", []),
        ("timm:local-dir:evil", []),
        ("timm:test_resnet", ["checkpoint_path=evil.pth"]),
        ("timm:test_resnet", ["pretrained_cfg_overlay={'file': 'evil.pth'}"]),
        ("torchvision:resnet18", ["weights=../evil.pt"]),
        ("torchvision:resnet18", ["norm_layer=__import__('os').getcwd()"]),
        ("hf:./evil", []),
        ("hf:../evil", []),
        ("hf:/tmp/evil", []),
        ("hf:evil/net", []),
        ("hf:real/net", ["trust_remote_code=True"]),
        ("penult.demo:demo", ["out=OWNED"]),
        ("penult.demo:DigitsCNN", ["x=1"]),
    ],
)
def test_libraries_are_asked_for_their_own_networks_only(
    folder: Path, spec: str, options: list[str]
) -> None:
    Path("evil/net").mkdir(parents=True)
    run = forged(lambda about: about["network"].update(spec=spec, set=options))
    refuse_network(run, "is not run: ")


def test_networks_of_libraries_need_no_trust(folder: Path) -> None:
    try:
        import_torchvision()
    except InputError:
        pytest.skip("torchvision is not installed")
    options = ["num_classes=3", "zero_init_residual=true"]
    run = forged(lambda about: about["network"].update(spec="torchvision:resnet18", set=options))
    with pytest.raises(InputError, match="is no longer the network of run") as caught:
        reopen_network(run)
    assert not isinstance(caught.value, UntrustedError)


@pytest.mark.parametrize(
    "about",
    [
        {"kind": "dataset", "source": "os:getcwd"},
        {"kind": "dataset", "source": "torchvision:CIFAR10:evil"},
        {"kind": "dataset", "source": "lmdb:evil"},
        {"kind": "dataset", "source": "hf:./evil"},
        {"kind": "shards", "shards": "evil.py:data"},
        {"kind": "folder", "path": "os:getcwd"},
        {"kind": "zip", "path": "evil.py:data"},
        {"kind": "digits:os", "source": "evil.py:data"},
        {"kind": "arrays", "source": "evil.py:data"},
    ],
)
def test_the_data_of_a_run_runs_nothing_either(folder: Path, about: dict[str, Any]) -> None:
    Path("evil.py").write_text(EVIL + DATA)
    run = forged(lambda found: found.update(data={**about, "fingerprint": "0"}))
    with pytest.raises(InputError, match="--data"):
        reopen_images(run, "data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert images_of(run, "data") is None
    assert not Path("OWNED").exists()


def test_data_that_the_user_named_opens_again(folder: Path) -> None:
    Path("mine.py").write_text(DATA)
    assert penult("analyze", "net.py:net", "mine.py:data", "--weights", "random", "--out", "x") == 0
    assert len(reopen_images(Run.open("x"), "data")) == 30


def test_an_index_reads_no_files_elsewhere(folder: Path) -> None:
    index = Path("run/features/train/index.json")
    shutil.copy("run/features/train/shard-00000.safetensors", "run/shard-00000.safetensors")
    for name in ("../../shard-00000.safetensors", str(folder / "x.safetensors"), 5, ".."):
        document = read_json(index)
        document["shards"][0]["file"] = name
        write_json(index, document)
        with pytest.raises(InputError, match=r"index\.json names"):
            Run.open("run").train()


def test_a_summary_reads_no_heads_elsewhere(folder: Path) -> None:
    summary = read_json(Path("run/summary.json"))
    summary["path"][0]["select"] = "../../../elsewhere"
    write_json(Path("run/summary.json"), summary)
    assert penult("report", "run") == 2


@pytest.mark.parametrize(
    "change",
    [
        {"format": "penult-head/1", "n_features": "9" * 30},
        {"format": "penult-head/1", "n_features": "9" * 5000},
        {"format": "penult-head/1", "n_features": "-1"},
    ],
)
def test_head_files_with_absurd_sizes(tmp_path: Path, change: dict[str, str]) -> None:
    tensors = {
        "indptr": torch.tensor([0, 1]),
        "indices": torch.tensor([0]),
        "values": torch.ones(1),
        "bias": torch.zeros(1),
    }
    save_file(tensors, tmp_path / "head.safetensors", change)
    with pytest.raises(InputError, match="n_features"):
        SparseHead.load(tmp_path / "head.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 8 + b"{}",
        (1 << 40).to_bytes(8, "little") + b"{}",
        json.dumps({"a": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 4]}}).encode(),
        b"",
    ],
)
def test_tensors_with_absurd_sizes(tmp_path: Path, content: bytes) -> None:
    if content.startswith(b"{"):
        content = len(content).to_bytes(8, "little") + content + b"\0" * 4
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="is no readable safetensors file"):
        SparseHead.load(tmp_path / "x.safetensors")


def test_weights_that_a_run_names_are_not_unpickled(folder: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch OWNED",)

    Path("evil.pt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    run = forged(lambda about: about["network"].update(weights="evil.pt"))
    with pytest.raises(InputError):
        reopen_network(run)
    assert not Path("OWNED").exists()


def test_a_precision_is_no_way_into_torch(folder: Path) -> None:
    run = forged(lambda about: about["identity"].update(dtype="load"))
    assert penult("explain", str(run.folder), "train:0") == 2


def test_pictures_of_a_run_are_not_read_from_elsewhere(folder: Path) -> None:
    assert penult("report", "run") == 0
    Path("secret.png").write_bytes(np.zeros(8).tobytes())
    index = read_json(Path("run/examples/index.json"))
    index["images"][0]["file"] = "../../secret.png"
    write_json(Path("run/examples/index.json"), index)
    page = Path("run/report.html")
    before = page.read_bytes()
    assert penult("report", "run") == 0
    assert page.read_bytes() == before

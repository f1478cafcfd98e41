"""One test for each attack that docs/security.md names: what is opened runs no code."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from rich.text import Text
from safetensors.torch import save_file

from command import penult
from penult.cli.console import PlainConsole
from penult.cli.output import print_json
from penult.cli.pages import print_page
from penult.data.class_list import class_list
from penult.data.open import batches, open_data
from penult.data.transform import Transform
from penult.edit.recipe import Recipe
from penult.edit.verdicts import verdicts_of
from penult.errors import InputError
from penult.extras import import_torchvision
from penult.heads.sparse_head import SparseHead
from penult.report.csv_tables import write_csv_tables
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


# Data, recipes, verdicts and names of somebody else.


def picture(red: int = 1) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def looked_at(data: Path) -> tuple[list[str], str]:
    """Why samples were left out, and what was said of the data."""
    opened = open_data(data)
    raw = Transform(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    faults = [
        fault.reason for batch in batches(opened, raw, batch_size=8) for fault in batch.faults
    ]
    return faults, "; ".join(opened.notes)


def table(folder: Path, *paths: str) -> Path:
    (folder / "img").mkdir(parents=True)
    for name in "01":
        (folder / "img" / f"{name}.png").write_bytes(picture(int(name)))
    rows = ["img/0.png", "img/1.png", *paths]
    lines = [f"{path},{'ab'[i % 2]}" for i, path in enumerate(rows)]
    (folder / "list.csv").write_text("path,label\n" + "\n".join(lines))
    return folder / "list.csv"


@pytest.mark.parametrize("how", ["../secret.png", "img/../../secret.png", "{0}/secret.png"])
def test_files_outside_of_a_tables_folder_are_named(tmp_path: Path, how: str) -> None:
    (tmp_path / "secret.png").write_bytes(picture(9))
    path = how.format(tmp_path)
    _, said = looked_at(table(tmp_path / "given", path))
    assert f"1 of the files lie outside of the table's folder, the first: {path}" in said
    assert "outside" not in looked_at(table(tmp_path / "other"))[1]
    inside = tmp_path / "third"
    assert "outside" not in looked_at(table(inside, f"{inside}/img/../img/0.png"))[1]


@pytest.mark.parametrize("kind", ["device", "pipe", "link", "zero byte"])
def test_what_has_no_end_is_not_read(tmp_path: Path, kind: str) -> None:
    """A device or a pipe among the images would fill the memory, or be waited for."""
    path = "img/x\0.png" if kind == "zero byte" else "img/x.png"
    given = table(tmp_path / "given", "/dev/zero" if kind == "device" else path)
    if kind == "pipe":
        os.mkfifo(given.parent / path)
    elif kind == "link":
        (given.parent / path).symlink_to("/dev/zero")
    (reason,) = looked_at(given)[0]
    assert "cannot be read" in reason


def test_a_folder_with_a_link_to_a_device(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.png").write_bytes(picture())
    (tmp_path / "data" / "a" / "1.png").symlink_to("/dev/zero")
    (reason,) = looked_at(tmp_path / "data")[0]
    assert "cannot be read" in reason


def member(kind: bytes, size: int, name: str = "a/0.png") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE])
def test_compressed_archives_do_not_fill_disk_or_memory(
    tmp_path: Path, opener: Any, kind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a file nor by a header that claims to be as large."""
    monkeypatch.setattr("penult.data.tars.FREE_BYTES", 1 << 16)
    path, n = tmp_path / "bomb.tar.gz", 16 << 20
    with opener(path, "wb") as file:
        file.write(member(kind, n) + bytes(n))
    held: list[int] = []
    real = tarfile.TarInfo.frombuf.__func__  # type: ignore[attr-defined]

    def noted(cls: Any, *arguments: Any) -> Any:
        held.append(1)
        return real(cls, *arguments)

    monkeypatch.setattr(tarfile.TarInfo, "frombuf", classmethod(noted))
    with pytest.raises(InputError, match="inflates to more than 200 times its size"):
        open_data(path)
    assert not held  # nothing of it was taken for a header before it was known to be small


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (member(tarfile.XHDTYPE, 3 << 20) + bytes(4 << 20), "has a header of 3,145,728 bytes"),
        (member(tarfile.GNUTYPE_LONGNAME, 3 << 20) + bytes(4 << 20), "has a header of"),
        ((member(tarfile.GNUTYPE_LONGNAME, 9) + b"a".ljust(512, b"\0")) * 5000, "damaged tar"),
        (member(tarfile.REGTYPE, 1 << 40) + bytes(1024), "lies past its end"),
        (member(tarfile.REGTYPE, 0, "../a/0.png") + bytes(1024), "climbs out of the archive"),
        (member(tarfile.REGTYPE, 0, "/a/0.png") + bytes(1024), "climbs out of the archive"),
    ],
)
def test_headers_of_archives(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_data(tmp_path / "x.tar")


def test_links_in_an_archive_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture(9))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind in (("a/0.png", tarfile.SYMTYPE), ("a/1.png", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / "secret.png")
            archive.addfile(info)
        for name in ("a/2.png", "b/3.png"):
            info, raw = tarfile.TarInfo(name), picture()
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    data = open_data(tmp_path / "x.tar")
    assert [data.id(i) for i in range(len(data))] == ["a/2.png", "b/3.png"]


def test_parquet_files_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    """A value or a row that is stored once and stands there a million times."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"

    def write(n_rows: int, text: str) -> None:
        codes = arrow.array(np.zeros(n_rows, np.int32))
        column = arrow.DictionaryArray.from_arrays(codes, arrow.array([text]))
        parquet.write_table(
            arrow.table({"path": column, "label": codes}),
            path,
            compression="zstd",
            row_group_size=n_rows,
            store_schema=False,
            dictionary_pagesize_limit=1 << 30,
        )

    write(2_000_000, "a.png")
    with pytest.raises(InputError, match="a table of 2,000,000 rows is beyond all measure"):
        open_data(path)
    write(200, f"{'x' * (1 << 20)}.png")
    with pytest.raises(InputError, match="the column 'path' is beyond all measure"):
        open_data(path)
    write(2, f"{'x' * (100 << 20)}.png")
    with pytest.raises(InputError, match="what it inflates to is beyond all measure"):
        open_data(path)


NUMBERS = ["1e999", "-1e999", "1" + "0" * 400, "1" + "0" * 5000, "[" * 100_000, "[1e999]", "{}"]


@pytest.mark.parametrize("value", NUMBERS)
def test_labels_that_are_no_numbers(tmp_path: Path, value: str) -> None:
    given = table(tmp_path / "given").with_suffix(".jsonl")
    given.write_text(
        f'{{"path": "img/0.png", "label": {value}}}\n{{"path": "img/1.png", "label": 0}}\n'
    )
    with pytest.raises(InputError) as caught:
        open_data(given)
    assert len(str(caught.value)) < 400
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, raw in (("0.png", picture()), ("0.json", f'{{"label": {value}}}'.encode())):
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    with pytest.raises(InputError) as caught:
        open_data(tmp_path / "x.tar")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        f"[{'1' * 5000}]",
        f"a{' ' * 100_000}b\nc 1\n",  # an expression that looked for a number took minutes
        f"{'1' * 5000} a\n",
    ],
)
def test_class_lists_without_end(tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_text(text)
    with pytest.raises(InputError, match="--class-names"):
        class_list(tmp_path / "names")


RECIPE = '{"format": "penult-recipe/1", "edits": [%s]%s}'


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        RECIPE % ("", ', "class_names": 5'),
        RECIPE % ("", ', "class_names": [1]'),
        RECIPE % ("", ', "note": {}'),
        RECIPE % ("", ', "head": [1]'),
        RECIPE % ("", ', "n_features": "many"'),
        RECIPE % ('{"edit": "off", "direction": [1e999]}', ""),
        RECIPE % (f'{{"edit": "off", "direction": [1{"0" * 400}]}}', ""),
        RECIPE % ('{"edit": "scale", "feature": 1, "value": 1e999}', ""),
        RECIPE % (f'{{"edit": "scale", "feature": 1, "value": 1{"0" * 400}}}', ""),
        RECIPE % ('{"edit": "cap", "feature": 1, "at": NaN}', ""),
    ],
)
def test_recipes_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(InputError, match=r"recipe\.json"):
        Recipe.load(tmp_path / "recipe.json")


def test_recipes_and_verdicts_have_a_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("recipe", "verdicts"):
        monkeypatch.setattr(f"penult.edit.{module}.MOST_BYTES", 1 << 10)
    Path("recipe.json").write_text(RECIPE % ("", f', "note": "{"x" * 2000}"'))
    with pytest.raises(InputError, match="is larger than"):
        Recipe.load("recipe.json")
    Path("run/verdicts.jsonl").write_text("x" * 2000)
    with pytest.raises(InputError, match="is larger than"):
        verdicts_of(Run.open("run"))


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b"[]",
        b"\xff",
        b'{"feature": 1e999, "class": "a", "verdict": "core"}',
        b'{"feature": 1, "class": ["a"], "verdict": "core"}',
        b'{"feature": 1, "class": "a", "verdict": "evil"}',
        b'{"feature": 1, "class": "a", "verdict": "core", "note": {}}',
    ],
)
def test_verdicts_that_are_none(folder: Path, line: bytes) -> None:
    Path("run/verdicts.jsonl").write_bytes(line)
    with pytest.raises(InputError, match=r"verdicts\.jsonl"):
        verdicts_of(Run.open("run"))
    assert penult("report", "run") == 2


ORDERS = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil"


def test_a_terminal_takes_no_orders_from_names(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences in what is shown, as text or as JSON, on either output."""
    stream = io.StringIO()
    print_page(
        cast(Any, Text(ORDERS, style="bold")), PlainConsole(file=stream, force_terminal=True)
    )
    shown = stream.getvalue()
    assert "evil" in shown
    assert not {"\x07", "\x9b", "\u202e"} & set(shown)
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown
    print_json({"name": ORDERS})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"name": ORDERS}
    assert not {"\x07", "\x9b", "\x1b"} & set(printed)

    summary = read_json(Path("run/summary.json"))
    summary["warnings"] = [ORDERS]
    write_json(Path("run/summary.json"), summary)
    assert penult("show", "run") == 0
    printed = "".join(capsys.readouterr())
    assert "evil" in printed
    assert not {"\x07", "\x9b", "\x1b"} & set(printed)


def test_tables_hold_no_formulas(folder: Path) -> None:
    """A spreadsheet computes what begins with these signs."""
    for old, new in (("a", "=cmd|'x'!A1"), ("b", "@SUM(1)"), ("c", "-1")):
        Path("data", old).rename(Path("data", new))
    assert penult("analyze", "net.py:net", "data", "--weights", "random", "--out", "two") == 0
    write_csv_tables(Run.open("two"), Path("tables"))
    cells = [
        cell
        for name in ("predictions.csv", "classes.csv")
        for row in csv.reader(Path("tables", name).read_text(encoding="utf-8").splitlines())
        for cell in row
    ]
    assert {"'=cmd|'x'!A1", "'@SUM(1)", "-1"} <= set(cells)
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+"))]

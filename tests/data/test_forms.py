"""Every form of data gives the same samples, and says what is wrong with it in one line."""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
import shlex
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from command import penult
from penult.data import forms
from penult.data.forms import DataOptions
from penult.data.image import ImageData
from penult.data.open import open_data, read
from penult.data.transform import Transform
from penult.errors import InputError
from penult.storage import write_tensors
from sentences import classifier, sentences, tokenizer, write_table

PLAIN = Transform(mean=(0.5,), std=(0.5,), source="test")
CLASSES = ("cat", "dog", "owl")
N = 30


def made(root: Path, seed: int = 0) -> list[tuple[str, str]]:
    """Pictures in class folders below `root`; their paths and classes, in order."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(N):
        name = CLASSES[i % 3]
        path = root / name / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 80, (8, 8, 3)) + 80 * (i % 3 == np.arange(3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        found.append((f"{name}/{i:03}.png", name))
    return sorted(found)


def write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_tar(path: Path, files: list[tuple[str, bytes]], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def listed(tmp_path: Path) -> list[tuple[str, str]]:
    return made(tmp_path / "photos")


def saved(root: Path, listed: list[tuple[str, str]]) -> dict[str, Any]:
    """The same samples in every form; what opens each."""
    photos = root / "photos"
    raw = [(photos / path).read_bytes() for path, _ in listed]
    rows = [{"path": f"photos/{path}", "label": name} for path, name in listed]
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        for path, _ in listed:
            archive.write(photos / path, path)
    files = [(path, content) for (path, _), content in zip(listed, raw, strict=True)]
    write_tar(root / "photos.tar", files)
    write_tar(root / "photos.tar.gz", files, "w:gz")
    write_tar(root / "photos.tar.xz", files, "w:xz")
    write_csv(root / "labels.csv", rows)
    write_csv(root / "labels.tsv", rows, "\t")
    (root / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), root / "paths.parquet")
    inner: list[dict[str, Any]] = [
        {"image": {"bytes": content, "path": path}, "label": name}
        for (path, name), content in zip(listed, raw, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(inner), root / "images.parquet", row_group_size=7)
    for part in range(2):
        half = inner[part * 15 : (part + 1) * 15]
        pq.write_table(pa.Table.from_pylist(half), root / f"part-{part}.parquet")
        shard = []
        for i, row in enumerate(half):
            key = f"{part * 15 + i:06}"
            shard += [(f"{key}.png", row["image"]["bytes"]), (f"{key}.cls", row["label"].encode())]
        write_tar(root / f"shard-{part:03}.tar", shard)
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_parquet(str(root / "images.parquet"), cache_dir=str(root / "c"))
    table = table.cast_column("image", datasets.Image())
    table = table.cast_column("label", datasets.ClassLabel(names=list(CLASSES)))
    table.save_to_disk(root / "hf")
    return {
        "folder": photos,
        "zip": root / "photos.zip",
        "tar": root / "photos.tar",
        "tar.gz": root / "photos.tar.gz",
        "tar.xz": root / "photos.tar.xz",
        "csv": root / "labels.csv",
        "tsv": root / "labels.tsv",
        "jsonl": root / "labels.jsonl",
        "paths": root / "paths.parquet",
        "bytes": root / "images.parquet",
        "parts": str(root / "part-*.parquet"),
        "shards": str(root / "shard-{000..001}.tar"),
        "one shard after the other": str(root / "shard-*.tar"),
        "hf": root / "hf",
        "hf:": f"hf:{root / 'hf'}",
    }


def contents(data: ImageData) -> list[tuple[bytes, str]]:
    """Pixels and class names of all samples."""
    names = data.class_names
    assert names is not None
    found = []
    for i in range(len(data)):
        pixels = read(data, PLAIN, i)
        found.append((pixels.values.numpy().tobytes(), names[pixels.label]))
    return found


def test_all_forms_give_the_same_samples_also_in_another_process(
    tmp_path: Path, listed: list[tuple[str, str]]
) -> None:
    wanted = None
    for form, spec in saved(tmp_path, listed).items():
        data = open_data(spec)
        assert len(data) == N, form
        assert len({data.id(i) for i in range(N)}) == N, form
        here = contents(data)
        wanted = wanted or here
        assert here == wanted, form
        assert contents(pickle.loads(pickle.dumps(data))) == wanted, form
        again = open_data(spec)
        assert again.fingerprint == data.fingerprint, form
        few = open_data(spec, options=DataOptions(limit=7))
        assert len(few) == 7, form
        assert contents(few) == [wanted[round(i)] for i in np.linspace(0, N - 1, 7).astype(int)]
        assert few.fingerprint != data.fingerprint, form
        unlabelled = open_data(spec, labelled=False)
        assert len(unlabelled) == N, form
        assert unlabelled.labels is None, form


@pytest.mark.parametrize("form", ["csv", "bytes", "tar.gz", "shards", "parts", "hf"])
def test_a_run_opens_again_what_it_was_made_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    listed: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    spec = saved(tmp_path, listed)[form]
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path)
    command = ("analyze", "model.py:network", str(spec), "--weights", "weights.safetensors")
    assert penult(*command, "--out", "run", "--limit", "24") == 0
    assert penult("explain", "run", "train:3", "--no-maps", "--fast") == 0
    assert "cannot be opened" not in capsys.readouterr().err
    assert penult("report", "run", "--no-maps", "--images", "2") == 0
    page = next((tmp_path / "run").glob("*.html")).read_text(encoding="utf-8")
    assert "data:image/" in page, "the report has the images"


@pytest.mark.parametrize("change", ["label", "image", "name"])
@pytest.mark.parametrize("form", ["csv", "bytes", "tar", "shards"])
def test_what_changed_has_another_fingerprint(
    tmp_path: Path, listed: list[tuple[str, str]], form: str, change: str
) -> None:
    before = open_data(saved(tmp_path, listed)[form]).fingerprint
    changed = list(listed)
    path, name = listed[4]
    if change == "label":
        changed[4] = (path, "owl" if name != "owl" else "cat")
        if form == "tar":
            pytest.skip("the label is the name")
    elif change == "image":
        Image.new("RGB", (8, 8), "red").save(tmp_path / "photos" / path)
    else:
        renamed = f"{name}/renamed.png"
        (tmp_path / "photos" / path).rename(tmp_path / "photos" / renamed)
        changed[4] = (renamed, name)
        if form == "shards":
            pytest.skip("the shards of this test have keys of their own")
    shutil.rmtree(tmp_path / "hf")
    assert open_data(saved(tmp_path, changed)[form]).fingerprint != before


def test_files_are_found_beside_the_table_and_without_their_ending(
    tmp_path: Path, listed: list[tuple[str, str]]
) -> None:
    (tmp_path / "train").mkdir()
    rows = []
    for path, name in listed:
        stem = Path(path).stem
        shutil.copy(tmp_path / "photos" / path, tmp_path / "train" / f"{stem}.png")
        rows.append({"id": f"x\\{stem}"[2:], "breed": name, "note": f"number {stem}"})
    data = open_data(write_csv(tmp_path / "list.csv", rows))
    assert contents(data) == contents(open_data(tmp_path / "photos"))
    assert "the images are in the column 'id' and the labels in 'breed'" in data.notes
    assert "the files are in the folder train, with the ending .png" in data.notes


def test_numbers_are_classes_and_rows_without_a_label_are_counted(
    tmp_path: Path, listed: list[tuple[str, str]]
) -> None:
    rows: list[dict[str, Any]] = [
        {"path": f"photos/{path}", "label": f"{CLASSES.index(name)}.0"} for path, name in listed
    ]
    rows[3]["label"] = rows[8]["label"] = ""
    data = open_data(write_csv(tmp_path / "list.csv", rows))
    assert data.labels is not None
    left = [row for row in rows if row["label"]]
    assert data.labels.tolist() == [int(row["label"][0]) for row in left]
    assert "2 rows have no label and are left out, the first is row 4" in data.notes


def test_missing_files_are_counted_and_are_faults(
    tmp_path: Path, listed: list[tuple[str, str]]
) -> None:
    table = saved(tmp_path, listed)["csv"]
    for path, _ in listed[2:5]:
        (tmp_path / "photos" / path).unlink()
    data = open_data(table)
    first = f"photos/{listed[2][0]}"
    assert f"3 listed files are not there, the first: {first}" in data.notes
    with pytest.raises(InputError, match="cannot be read"):
        data.load(2)


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("a.csv", "path,label\nno.png,a\nnot.png,b\n", {}, "none of the 2 files .* is there"),
    ("a.csv", "path,label\na.png,x\na.png,y\n", {}, "lists 1 image more than once, such as a.png"),
    ("a.csv", "u,v\n1,2\n3,4\n", {}, "which column holds the images.* --image-column"),
    ("a.csv", "path,u,v\na.png,x,k\nb.png,x,k\nc.png,y,l\nd.png,y,l\n", {}, "u, v could be meant"),
    ("a.csv", "path\na.png\n", {}, "none looks like classes"),
    ("a.csv", "path,label\na.png,x\n", {"image_column": "file"}, "no column 'file'; it has path"),
    ("a.csv", "path,label\na.png,x\n", {"label_column": "path"}, "which column holds the images"),
    ("a.csv", "path,label\nhttps://x.y/a.png,x\n", {}, "addresses such as .* are not fetched"),
    ("a.csv", "path,label\na.png\n", {}, "row 1 has 1 fields, expected 2"),
    ("a.csv", "path,label\n", {}, "has no rows"),
    ("a.csv", "path,label\na.png,\n", {}, "no row has a label"),
    ("a.csv", "path,label\na.png,-3\n", {}, "label of row 1 is -3"),
    ("a.csv", "path,path\na.png,x\n", {}, "two columns 'path'"),
    ("a.csv", "path,label\n./a.png,x\na.png,y\n", {}, "lists 1 image more than once"),
    ("a.csv", "path,label\na.png,0.5\nb.png,1\n", {}, "label of row 1 is 0.5, expected a class"),
    ("a.csv", "a.png,x\nb.png,y\n", {}, "first line holds a.png and no names of columns"),
    ("a.jsonl", '{"path": "a.png", "label": {"x": 1}}', {}, "row 1 holds an object of x"),
    ("a.tar.gz", "\x1f\x8b\x08", {}, "is no tar archive|damaged"),
    ("a.jsonl", '{"path": "a.png"\n', {}, "line 1: expected a JSON object"),
    ("a.parquet", "no parquet", {}, "no readable Parquet file"),
    ("a.tar", "no tar", {}, "is no tar archive"),
    ("a.tar.gz", "no tar", {}, "is no tar archive"),
]


@pytest.mark.parametrize(("name", "text", "options", "said"), REFUSED)
def test_one_line_says_what_is_wrong(
    tmp_path: Path, name: str, text: str, options: dict[str, Any], said: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said) as caught:
        open_data(tmp_path / name, options=DataOptions(**options))
    assert "\n" not in str(caught.value)


def test_other_names_are_refused_with_what_was_meant(
    tmp_path: Path, listed: list[tuple[str, str]]
) -> None:
    for spec, said in (
        (tmp_path / "shard-{000..002}.tar", r"3 of 3 are not there"),
        (tmp_path / "shard-{5..2}.tar", "expected a range"),
        (tmp_path / "*.tar", "no file fits"),
        ("torchvision:CIFAR:x", "no data set 'CIFAR': did you mean CIFAR"),
        ("torchvision:CIFAR10", "expected torchvision:CIFAR10:ROOT"),
        (f"torchvision:CIFAR10:{tmp_path}", "not found or corrupted; its files .* nothing is down"),
        ("torchvision:mnist:x", "did you mean MNIST"),
        (f"torchvision:MNIST:{tmp_path}:val", "has the parts train and test, found 'val'"),
        (f"torchvision:CocoCaptions:{tmp_path}", "needs the arguments annFile: call it in a funct"),
        (f"torchvision:LSUN:{tmp_path}", "unpickles a file of its folder"),
        ("hf:", "names no data set"),
    ):
        with pytest.raises(InputError, match=said):
            open_data(str(spec))
    for spec in ("hf:" + "x" * 300, "y" * 5000, "z\0z"):
        with pytest.raises(InputError, match="no file has such a name"):
            open_data(spec)
    with pytest.raises(InputError, match="--label-column is for tables"):
        open_data(tmp_path / "photos", options=DataOptions(label_column="x"))
    with pytest.raises(InputError, match="--limit must be at least 1, found 0"):
        DataOptions(limit=0)


def test_the_parts_of_a_saved_data_set_are_offered(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    part = datasets.Dataset.from_dict({"label": [0, 1]})
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(tmp_path / "all")
    with pytest.raises(InputError, match=r"give .*/all/train as DATA.* --eval .*/all/test"):
        open_data(tmp_path / "all")
    with pytest.raises(InputError, match="no part is called 'tset'; .*/all has train, test"):
        open_data(f"hf:{tmp_path / 'all'}:tset")
    pictures = {"image": [Image.new("L", (8, 8), 9), None], "label": [[1], [0]]}
    alone = datasets.Dataset.from_dict(pictures).cast_column("image", datasets.Image())
    datasets.DatasetDict({"only": alone}).save_to_disk(tmp_path / "one")
    data = open_data(tmp_path / "one")
    assert data.describe()["path"] == str(tmp_path / "one" / "only")
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0]
    with pytest.raises(InputError, match="1: has no image"):
        read(data, PLAIN, 1)


def test_paths_of_images_in_dicts_are_images(tmp_path: Path, listed: list[tuple[str, str]]) -> None:
    paths = [str(tmp_path / "photos" / path) for path, _ in listed]
    items = [{"file": path, "kind": [i % 3]} for i, path in enumerate(paths)]
    data = open_data(items)
    assert data.sample(4)[1] == 1
    assert "'file' is the image and 'kind' the label" in " ".join(data.notes)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            [("1.png", b"x"), ("1.cls", b""), ("2.png", b"x")],
            "no sample of .* has a label, such as 1",
        ),
        ([("1.png", b"x"), ("1.cls", b"0"), ("2.cls", b"1"), ("1.png", b"y")], "the key 1 stands"),
        ([("1.png", b"x"), ("1.json", b"{")], "1.json is no label"),
        ([("1.png", b"x"), ("1.json", b'{"size": 3}')], ".json with 'label' in it"),
        ([("../1.png", b"x"), ("1.cls", b"0")], "climbs out of the archive"),
        ([("1.txt", b"x"), ("1.cls", b"0")], "holds no images"),
    ],
)
def test_shards_that_cannot_be_used(
    tmp_path: Path, files: list[tuple[str, bytes]], said: str
) -> None:
    path = write_tar(tmp_path / "x-0.tar", files)
    with pytest.raises(InputError, match=said):
        open_data(str(path).replace("x-0", "x-*"))


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_an_archive_that_was_cut_short_says_so(
    tmp_path: Path, listed: list[tuple[str, str]], ending: str
) -> None:
    rng = np.random.default_rng(0)
    files = [(f"a/{i}.png", rng.bytes(9000)) for i in range(20)]
    path = write_tar(tmp_path / f"x{ending}", files, "w:gz" if ending.endswith("gz") else "w")
    raw = path.read_bytes()
    for end in (len(raw) // 2, len(raw) // 3, 9728 * 5, 9728 * 5 + 100):
        path.write_bytes(raw[:end])
        with pytest.raises(InputError, match="truncated or damaged tar"):
            open_data(path)


def test_an_archive_that_inflates_beyond_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penult.data.tars.FREE_BYTES", 1 << 20)
    path = write_tar(tmp_path / "x.tar.gz", [("a/1.png", bytes(300 << 20))], "w:gz")
    with pytest.raises(InputError, match="inflates to more than 200 times its size"):
        open_data(path)


class Endless(torch.utils.data.IterableDataset[Any]):
    classes = CLASSES

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        i = 0
        while True:
            yield Image.new("RGB", (8, 8), (i % 256, 0, 0)), i % 3
            i += 1


def test_a_stream_needs_a_limit_and_gives_its_first_samples() -> None:
    with pytest.raises(InputError, match="--limit"):
        open_data(Endless())
    data = open_data(Endless(), options=DataOptions(limit=11))
    assert [data.sample(i)[1] for i in range(len(data))] == [i % 3 for i in range(11)]
    assert data.describe()["options"] == {"limit": 11}
    generated = open_data(iter(Endless()), options=DataOptions(limit=4))
    assert len(generated) == 4
    with pytest.raises(InputError, match="is empty"):
        open_data(iter(()), options=DataOptions(limit=4))


def test_another_package_adds_a_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other_package.py").write_text(
        "import numpy as np\n"
        "class Set:\n"
        "    def __init__(self, n): self.n = int(n)\n"
        "    def __len__(self): return self.n\n"
        "    def __getitem__(self, i):\n"
        "        if i >= self.n: raise IndexError\n"
        "        return np.full((8, 8), i, np.uint8), i % 2\n"
        "def fails(rest): raise RuntimeError('no such ' + rest)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = [
        EntryPoint(name, f"other_package:{what}", forms.ENTRY_POINTS)
        for name, what in (("numbers", "Set"), ("broken", "fails"))
    ]
    monkeypatch.setattr(forms, "plugins", lambda: found)
    data = open_data("numbers:6")
    assert [data.sample(i)[1] for i in range(len(data))] == [0, 1] * 3
    assert data.describe()["source"] == "numbers:6"
    with pytest.raises(InputError, match=r"broken:thing: other_package.* no such thing"):
        open_data("broken:thing")


NETWORK = """
import numpy as np
from torch import nn


class Network(nn.Module):
    def __init__(self, n_classes=3, n_channels=3):
        super().__init__()
        self.penult_transform = {"mean": [0.5] * n_channels, "std": [0.5] * n_channels}
        self.n_channels = n_channels
        self.features = nn.Sequential(
            nn.Conv2d(n_channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(8, n_classes)

    def forward(self, images):
        return self.head(self.features(images))


def network(n_classes="3", n_channels="3"):
    return Network(int(n_classes), int(n_channels))


def pictures():
    rng = np.random.default_rng(0)
    for i in range(60):
        yield rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), i % 3


def samples():
    return [list(pictures())[i] for i in range(60)]


def stream():
    yield from pictures()
"""


def write_network(folder: Path) -> None:
    """A network of three classes, or of what its options say, with weights for it."""
    (folder / "model.py").write_text(NETWORK)
    names: dict[str, Any] = {}
    exec(compile(NETWORK, "model.py", "exec"), names)
    torch.manual_seed(0)
    weights = names["network"]().state_dict()
    write_tensors(folder / "weights.safetensors", weights, {"format": "pt"})
    for options, name in (((10, 1), "digits"), ((10, 3), "ten")):
        made = names["Network"](*options).state_dict()
        write_tensors(folder / f"{name}.safetensors", made, {"format": "pt"})


def examples(repository: Path) -> list[str]:
    text = (repository / "docs" / "data.md").read_text(encoding="utf-8")
    return re.findall(r"^penult analyze.*$", text, re.M)


@pytest.mark.slow
def test_every_example_of_the_page_on_data_runs(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    listed: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = saved(tmp_path, listed)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    for part in range(2):
        shutil.copy(f"shard-{part:03}.tar", f"shards/train-{part:03}.tar")
        shutil.copy(f"part-{part}.parquet", f"images-{part}.parquet")
    shutil.copytree(places["hf"], "saved")
    both = [
        {"photo": f"photos/{path}", "path": f"photos/{path}", "label": name, "kind": name}
        for path, name in listed
    ]
    write_csv(tmp_path / "labels.csv", both)
    tags = [
        {"path": row["path"], "tags": f"{row['label']};owl" if i % 2 else row["label"]}
        for i, row in enumerate(both)
    ]
    write_csv(tmp_path / "tags.csv", [{"path": r["path"], "label": r["tags"]} for r in tags])
    columns = [{c: int(c in row["tags"].split(";")) for c in CLASSES} for row in tags]
    found = [{"path": row["path"], **own} for row, own in zip(tags, columns, strict=True)]
    write_csv(tmp_path / "findings.csv", found)
    write_network(tmp_path)
    rows = sentences(30, 0, planted=False)
    words = tokenizer([text for text, _ in rows])
    for made in (classifier(words), words):
        made.save_pretrained(tmp_path / "classifier")
    write_table(tmp_path / "sentences.csv", rows)
    shown = examples(repository)
    assert len(shown) >= 20
    for i, line in enumerate(shown):
        command = shlex.split(line)[1:]
        if "digits" in line:
            command[-1] = "digits.safetensors"
            command += ["--set", "n_classes=10", "--set", "n_channels=1"]
        code = penult(*command, "--out", f"run{i}")
        assert code == 0, f"{line}: {capsys.readouterr().err}"
    read_again = json.loads((tmp_path / "run3" / "run.json").read_text())["data"]
    assert read_again["options"] == {"image_column": "photo", "label_column": "kind"}


def test_columns_of_the_table_itself_are_groups(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    listed: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        {"path": f"photos/{path}", "label": name, "sex": "mf"[i % 2], "age": 20 + i}
        for i, (path, name) in enumerate(listed)
    ]
    write_csv(tmp_path / "list.csv", rows)
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path)
    command = ("analyze", "model.py:network", "list.csv", "--weights", "weights.safetensors")
    asked = ("--group-columns", "sex", "--bins", "age=3", "--limit", "24")
    assert penult(*command, *asked, "--out", "run", "--no-fit") == 0
    capsys.readouterr()
    assert penult("measure", "run", "--json") == 0
    found = json.loads(capsys.readouterr().out)["groups"]["attributes"]
    assert set(found) == {"sex", "age"}
    taken = [rows[i] for i in np.linspace(0, N - 1, 24).astype(int)]
    counted = {(row["class"], row["value"]): row["n_samples"] for row in found["sex"]["groups"]}
    for (name, value), n in counted.items():
        own = [row for row in taken if row["label"] == name and row["sex"] == value]
        assert n == len(own)
    assert sum(counted.values()) == len(taken)
    assert len(found["age"]["values"]) == 3
    for more, said in (
        (("--group-columns", "hospital"), "no column 'hospital'; it has path, label, sex, age"),
        (("--group-columns", "sex", "--groups", "list.csv"), "give one"),
    ):
        assert penult(*command, *more, "--out", "other") == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert penult("analyze", command[1], "photos", *command[3:], *asked[:2], "--out", "other") == 2
    assert "the data are no table" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "other").exists()


def test_a_column_of_images_in_several_encodings(tmp_path: Path) -> None:
    """Each image is read as it is encoded; what is none is a fault of that image alone."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    encoded = []
    for kind, mode, options in (
        ("PNG", "RGB", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("BMP", "RGB", {}),
        ("JPEG", "RGB", {"quality": 95}),
        ("PNG", "L", {}),
        ("GIF", "P", {}),
    ):
        file = io.BytesIO()
        picture.convert(mode).save(file, format=kind, **options)
        encoded.append(file.getvalue())
    encoded += [b"no image", encoded[0][:40]]
    rows = [{"image": {"bytes": raw, "path": None}, "label": "ab"[i % 2]}
            for i, raw in enumerate(encoded)]  # fmt: skip
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mixed.parquet")
    data = open_data(tmp_path / "mixed.parquet")
    assert len(data) == len(encoded)
    wanted = read(data, PLAIN, 0).values
    for i in (1, 2):
        assert torch.equal(read(data, PLAIN, i).values, wanted)
    for i in (3, 4, 5):
        assert read(data, PLAIN, i).values.shape == wanted.shape
    for i in (6, 7):
        with pytest.raises(InputError, match=str(i)):
            read(data, PLAIN, i)

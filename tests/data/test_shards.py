"""WebDataset shards and tars as other programs write them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from penult.data.open import open_data
from penult.errors import InputError

Files = list[tuple[str, bytes]]


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


PICTURES = [picture(i) for i in range(6)]


def write(path: Path, files: Files, links: dict[str, tuple[bytes, str]] | None = None) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, (kind, target) in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return path


def shard(label: Any, ending: str, image: str = "png") -> Files:
    """Six samples; `label` makes the content of a file from the number of the sample."""
    files: Files = []
    for i, raw in enumerate(PICTURES):
        files.append((f"{i:03}.{image}", raw))
        content = label(i)
        files.append(
            (f"{i:03}.{ending}", content if isinstance(content, bytes) else content.encode())
        )
    return files


def said(value: Any) -> Any:
    return lambda i: json.dumps(value(i))


LABELS: dict[str, Files] = {
    "numbers": shard(lambda i: f"{i % 2}\n", "cls"),
    "label.txt": shard(lambda i: str(i % 2), "label.txt"),
    "objects": shard(said(lambda i: {"caption": "x", "label": i % 2}), "json"),
    "lists of one": shard(said(lambda i: {"label": [i % 2]}), "json"),
    "byte order mark": shard(lambda i: b"\xef\xbb\xbf" + str(i % 2).encode(), "json"),
    "labels first": shard(lambda i: str(i % 2), "cls")[::-1],
    "apart": sorted(shard(lambda i: str(i % 2), "cls"), key=lambda file: file[0][-3:]),
    "captions beside": shard(lambda i: str(i % 2), "cls") + shard(lambda i: "a cat", "txt")[1::2],
    "captions and objects": shard(said(lambda i: {"label": i % 2}), "json")
    + shard(lambda i: "a cat", "txt")[1::2],
    "masks beside": [(f"{i:03}.mask.png", b"no picture") for i in range(6)]
    + shard(lambda i: str(i % 2), "cls"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_found_beside_the_images(tmp_path: Path, kind: str) -> None:
    data = open_data(write(tmp_path / "a.tar", LABELS[kind]))
    assert data.labels is not None
    by_id = {data.id(i): int(data.labels[i]) for i in range(len(data))}
    assert by_id == {f"{i:03}": i % 2 for i in range(6)}
    for i in range(6):
        assert data.load(i).getpixel((0, 0))[0] == int(data.id(i))  # type: ignore


def test_keys_with_dots_are_told_apart_by_the_last(tmp_path: Path) -> None:
    files = [(f"a/v1.{name}", raw) for name, raw in shard(lambda i: str(i % 2), "cls")]
    data = open_data(write(tmp_path / "a.tar", files))
    assert [data.id(i) for i in range(len(data))] == [f"a/v1.{i:03}" for i in range(6)]


def test_samples_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    files = shard(lambda i: "" if i == 1 else f"kind {i % 2}", "cls")
    del files[9]
    data = open_data(write(tmp_path / "a.tar", files))
    assert [data.id(i) for i in range(len(data))] == ["000", "002", "003", "005"]
    assert "2 samples have no label and are left out, the first: 001" in data.notes
    assert len(open_data(tmp_path / "a.tar", labelled=False)) == 6
    bad = shard(lambda i: str(i - 3) if i != 1 else "", "cls")
    with pytest.raises(InputError, match="a.tar: the label of 000 is -3, expected at least 0"):
        open_data(write(tmp_path / "a.tar", bad))


def test_several_images_of_a_sample_are_said(tmp_path: Path) -> None:
    data = open_data(write(tmp_path / "a.tar", LABELS["masks beside"]))
    assert "samples hold several images (png, mask.png): png is taken" in data.notes


@pytest.mark.parametrize(("ending", "text"), [("txt", "a caption"), ("json", '{"width": 4}')])
def test_captions_in_folders_of_classes_are_no_labels(
    tmp_path: Path, ending: str, text: str
) -> None:
    files = shard(lambda i: text, ending)
    files = [(f"{'ab'[int(name[:3]) % 2]}/{name}", raw) for name, raw in files]
    data = open_data(write(tmp_path / "a.tar", files))
    assert data.class_names == ("a", "b")
    assert len(data) == 6


def test_links_in_a_tar_are_the_files_that_they_lead_to(tmp_path: Path) -> None:
    files = [(f"pool/{i}.png", raw) for i, raw in enumerate(PICTURES)]
    links = {
        "train/a/0.png": (tarfile.LNKTYPE, "pool/0.png"),
        "train/a/1.png": (tarfile.SYMTYPE, "../../pool/1.png"),
        "train/b/2.png": (tarfile.SYMTYPE, "../a/1.png"),
        "train/b/3.png": (tarfile.SYMTYPE, "/etc/passwd"),
        "train/b/4.png": (tarfile.SYMTYPE, "4.png"),
    }
    data = open_data(f"{write(tmp_path / 'a.tar', files, links)}/train")
    assert [data.id(i) for i in range(len(data))] == ["a/0.png", "a/1.png", "b/2.png"]
    assert [data.load(i).getpixel((0, 0))[0] for i in range(3)] == [0, 1, 1]  # type: ignore
    left_out = "2 entries are links that lead to no file of the archive, or no plain file: train/b/"
    assert any(note.startswith(left_out) for note in data.notes)


def test_shards_are_named_in_the_ways_of_webdataset(tmp_path: Path) -> None:
    for part in range(4):
        files = [(f"{part}{name}", raw) for name, raw in shard(lambda i: "1", "cls")]
        write(tmp_path / f"{'ab'[part // 2]}-{part:02}.tar", files)
    root = str(tmp_path)
    whole = open_data(f"{root}/a-{{00..01}}.tar::{root}/b-{{02..03}}.tar")
    assert len(whole) == 24
    assert whole.id(6) == "1000"
    assert len(open_data(f"{root}/{{a-00,b-03}}.tar")) == 12
    with pytest.raises(InputError, match=r"2 of 2 are not there .*: did you mean a-01.tar"):
        open_data(f"{root}/a-{{0..1}}.tar")
    for address in ("https://x.y/a-{00..01}.tar", "pipe:cat a.tar", "s3://x/a.tar"):
        with pytest.raises(InputError, match="is an address, which is not fetched"):
            open_data(address)


def test_archives_are_told_apart_by_their_content_where_the_name_lies(tmp_path: Path) -> None:
    write(tmp_path / "a.zip", [(f"{'ab'[i % 2]}/{i}.png", raw) for i, raw in enumerate(PICTURES)])
    assert len(open_data(tmp_path / "a.zip")) == 6
    import zipfile

    with zipfile.ZipFile(tmp_path / "b.tar", "w") as archive:
        for i, raw in enumerate(PICTURES):
            archive.writestr(f"{'ab'[i % 2]}/{i}.png", raw)
    assert len(open_data(tmp_path / "b.tar")) == 6

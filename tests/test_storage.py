from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from penult.errors import InputError, NotWrittenError
from penult.storage import (
    read_json,
    read_tensors,
    sweep,
    temporary_beside,
    write_atomically,
    write_folder,
    write_json,
    write_tensors,
)


def test_the_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    metadata = {"format": "x/1", **{f"key {i}": "ü" * i for i in range(20)}}
    tensors = {"b": torch.ones(2), "a": torch.zeros(3, 2)}
    for name in ("first", "second"):
        write_tensors(tmp_path / name, tensors, metadata)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    found, notes = read_tensors(tmp_path / "first", "x/1", ("a", "b"))
    assert notes == metadata
    assert torch.equal(found["b"], tensors["b"])


def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_tensors(tmp_path / "tensors", {"a": torch.ones(1)}, {"format": "x/1"})
    assert (tmp_path / "tensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"the disk is full: .*run\.json could not be written"):
        write_atomically(path, fail)
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_other_failures_say_what_they_are(tmp_path: Path) -> None:
    def fail(temporary: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(InputError, match="could not be written: .*Permission denied"):
        write_atomically(tmp_path / "run.json", fail)


def test_documents_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(InputError, match="does not exist"):
        read_json(path)
    path.write_text("{")
    with pytest.raises(InputError, match="is no readable JSON document"):
        read_json(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="holds no JSON object"):
        read_json(path)
    write_json(path, {"format": "other/1"})
    with pytest.raises(InputError, match="expected format run/1, found other/1"):
        read_json(path, "run/1")


def test_two_writers_at_once_leave_the_file_of_the_later_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"

    def first(mine: Path) -> None:
        mine.write_text("first" * 1000)
        write_atomically(path, lambda other: other.write_text("second"))
        assert mine.read_text() == "first" * 1000, "nobody else writes into my temporary file"

    write_atomically(path, first)
    assert path.read_text() == "first" * 1000
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    file, folder = temporary_beside(tmp_path / "a.json"), temporary_beside(tmp_path / "deep" / "b")
    folder.mkdir(parents=True)
    file.touch()
    kept = [tmp_path / name for name in (".hidden.tmp", ".a.json.0123456789ab.tmp.txt", "x.tmp")]
    for one in kept:
        one.touch()
    sweep(tmp_path, ["deep", "absent"])
    assert not file.exists()
    assert not folder.exists()
    assert all(one.exists() for one in kept)


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    def fill(new: Path) -> None:
        (new / "b").write_text("new")

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").touch()
    write_folder(tmp_path / "folder", fill)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["b"]

    def fail(new: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.raises(NotWrittenError, match="folder could not be written: Read-only"):
        write_folder(tmp_path / "folder", fail)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "b").read_text() == "new"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, "9" * 10_000])
def test_absurd_documents_end_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is no readable JSON document"):
        read_json(path)
    with pytest.raises(InputError, match="is no file"):
        read_json(tmp_path)
    with pytest.raises(InputError, match="is no file"):
        read_tensors(tmp_path, "x/1", ())


def test_tensors_of_one_memory_are_written_each(tmp_path: Path) -> None:
    """The weights of a network that uses a layer twice, and views of one tensor."""
    layer = torch.nn.Linear(3, 3)
    model = torch.nn.Sequential(layer, layer)
    whole = torch.arange(6.0)
    tensors = {**model.state_dict(), "whole": whole, "half": whole[3:]}
    write_tensors(tmp_path / "x.safetensors", tensors, {"format": "x/1"})
    found, _ = read_tensors(tmp_path / "x.safetensors", "x/1", ())
    assert found.keys() == tensors.keys()
    torch.testing.assert_close(found, dict(tensors))

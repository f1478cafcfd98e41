from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from penult.errors import InputError
from penult.storage import read_json, read_tensors, write_atomically, write_json, write_tensors


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

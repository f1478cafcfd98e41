"""Which files of the data are watched, and what is left of a range of shards."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from penult.cluster.handover import SharedFolder
from penult.cluster.job import _missing, files_of, require_unchanged
from penult.errors import InputError
from penult.features.shard_folder import shard_path


def test_archives_tables_and_shards_are_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.zip", "s-0.tar", "s-1.tar", "t.csv"):
        Path(name).write_bytes(b"x")
    Path("folder").mkdir()

    def watched(**about: object) -> list[str]:
        return [Path(path).name for path in files_of(about)]

    assert watched(path="a.zip/train") == ["a.zip"]
    assert watched(path="t.csv") == ["t.csv"]
    assert watched(shards="s-{0..1}.tar") == ["s-0.tar", "s-1.tar"]
    assert watched(shards="s-*.tar") == ["s-0.tar", "s-1.tar"]
    assert watched(path="folder") == []
    assert watched(source="data.py:images") == []


def test_a_file_that_grows_or_goes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    files = files_of({"path": str(path)})
    require_unchanged(files)
    os.utime(path, (1, 1))  # other content of the same size
    with pytest.raises(InputError, match=r"a.zip changed while it was read"):
        require_unchanged(files)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"a.zip changed while it was read: .*--overwrite"):
        require_unchanged(files)
    path.unlink()
    with pytest.raises(InputError, match=r"a.zip cannot be read .*under the path that the command"):
        require_unchanged(files)


def test_what_is_left_of_some_shards(tmp_path: Path) -> None:
    for shard in (1, 2, 5):
        shard_path(tmp_path, shard).touch()
    assert _missing(SharedFolder(tmp_path), 0, 8) == [(0, 1), (3, 5), (6, 8)]
    assert _missing(SharedFolder(tmp_path), 1, 3) == []

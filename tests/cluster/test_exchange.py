"""Files go through storage whole, and what is wrong with the storage is said in one line."""

from __future__ import annotations

import errno
import pickle
import time
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from cluster_work import analyze, contents
from command import penult
from penult.cluster import exchange as module
from penult.cluster.exchange import Exchange
from penult.cluster.handover import Fetching, SharedFolder, StoredShards
from penult.errors import InputError
from penult.features.shard_folder import shard_path
from penult.features.shards import Block, write_shard


class Bucket(MemoryFileSystem):  # type: ignore[misc]
    """Storage with addresses of its own, `bucket://NAME/…`, that does what a test asks of it."""

    protocol = "bucket"
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    fault: Exception | None = None
    pause = 0.0
    made: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return f"/{str(path).removeprefix('bucket://').strip('/')}"

    def pipe_file(self, path: str, value: bytes, **more: Any) -> None:
        time.sleep(self.pause)
        if self.fault is not None:
            raise self.fault
        super().pipe_file(path, value, **more)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.made.append(path)
        super().makedirs(path, exist_ok=exist_ok)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> type[Bucket]:
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    for name, value in (("store", {}), ("pseudo_dirs", [""]), ("made", []), ("pause", 0.0)):
        monkeypatch.setattr(Bucket, name, value)
    monkeypatch.setattr(Bucket, "fault", None)
    return Bucket


def shard(folder: Path, number: int, n: int = 30) -> Path:
    generator = torch.Generator().manual_seed(number)
    labels = torch.arange(n) % 3
    block = Block(
        torch.randn(n, 4, generator=generator), labels, labels, [f"{i}" for i in range(n)]
    )
    folder.mkdir(exist_ok=True, parents=True)
    write_shard(shard_path(folder, number), block, {"faults": "{}"})
    return shard_path(folder, number)


@pytest.mark.parametrize("address", ["bucket://b/x", "file://{}/deep/er", "{}/plain"])
def test_what_is_put_is_got(tmp_path: Path, bucket: type[Bucket], address: str) -> None:
    place = Exchange(address.format(tmp_path))
    place.check()
    inside = place.inside("a")
    file = shard(tmp_path / "here", 0)
    assert not inside.has("one")
    assert inside.names() == set()
    inside.put(file, "one")
    assert inside.has("one")
    assert inside.names() == {"one"}
    assert inside.has_tensors("one")
    inside.get("one", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    inside.clear()
    inside.clear()
    assert inside.names() == place.names() == set(), "the probe is gone, too"


def test_part_of_a_file_is_none(tmp_path: Path) -> None:
    place = Exchange(str(tmp_path / "there"))
    whole = shard(tmp_path, 0).read_bytes()
    for n in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:n])
        place.put(tmp_path / "cut", "one")
        assert not place.has_tensors("one"), n
    (tmp_path / "cut").write_bytes(whole)
    place.put(tmp_path / "cut", "one")
    assert place.has_tensors("one")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "nosuch://b",
            r"expected an address such as s3://.*found 'nosuch://b' \(Protocol",
        ),
        ("memory://b", "memory://b lies in the memory of one process"),
    ],
)
def test_what_is_no_storage_is_refused(address: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Exchange(address).check()


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install it to access it")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    for address, remedy in (
        ("s3://b/x", "pip install s3fs"),
        ("gs://b/x", "pip install gcsfs"),
        ("abfs://b/x", "pip install adlfs"),
        ("other://b/x", "Install it to access it"),
    ):
        with pytest.raises(
            InputError, match=f"{address} needs a library .*not installed.*{remedy}"
        ):
            Exchange(address).check()


def test_storage_that_fails_is_said_in_one_line(bucket: type[Bucket]) -> None:
    bucket.fault = RuntimeError("no\nsuch bucket")
    with pytest.raises(
        InputError,
        match=r"bucket://b cannot be written and read: RuntimeError: no such bucket; look",
    ):
        Exchange("bucket://b").check()


def test_storage_that_gives_other_bytes_is_refused(
    bucket: type[Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "cat_file", lambda *_, **__: b"other")
    with pytest.raises(InputError, match="bucket://b gives back other bytes than were written"):
        Exchange("bucket://b").check()


@pytest.mark.parametrize("is_bucket", [False, True])
def test_no_bucket_is_made(
    bucket: type[Bucket], monkeypatch: pytest.MonkeyPatch, is_bucket: bool
) -> None:
    """A name that is mistyped would make one."""
    monkeypatch.setattr(module, "BUCKETS", {"bucket": "lib"} if is_bucket else {})
    Exchange("bucket://b/x").check()
    assert bool(bucket.made) == (not is_bucket)


def test_a_full_disk_is_the_command_s_own_and_no_fault_of_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = StoredShards(Exchange(str(tmp_path / "x")))
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.get_file", full)
    with pytest.raises(InputError, match=rf"the disk is full: {tmp_path}/own/shard-00000.*goes on"):
        place.fetch(0, tmp_path / "own")
    assert list((tmp_path / "own").iterdir()) == []


def test_storage_that_does_not_answer_is_said(
    bucket: type[Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    bucket.pause = 1.0
    with pytest.raises(InputError, match=r"bucket://b did not answer within 0.1 seconds"):
        Exchange("bucket://b").check()


def test_shards_are_handed_over_whole(tmp_path: Path) -> None:
    place: StoredShards = pickle.loads(pickle.dumps(StoredShards(Exchange(str(tmp_path / "x")))))
    with pytest.raises(InputError, match=r"it does not see .*/x, into which the command has writt"):
        place.require_seen()
    place.begin()
    place.require_seen()
    blocks = {}
    for number in (0, 2):
        with place.writing() as folder:
            file = shard(folder, number)
            blocks[number] = file.read_bytes()
            place.written(folder, number)
            assert not file.exists()
        assert not folder.exists()
    assert [place.has(number) for number in range(3)] == [True, False, True]
    (tmp_path / "x" / "shard-00001.safetensors").write_bytes(blocks[0][:-1])
    assert place.found(3) == {0, 2}
    own = tmp_path / "own"
    own.mkdir()
    fetching = Fetching(place, own)
    fetching.begin([0, 1, 2])
    fetching.wait([0, 2])
    # What is on its way has another name.
    assert {path.name: path.read_bytes() for path in sorted(own.glob("shard-*"))} == {
        shard_path(own, number).name: blocks[number] for number in (0, 2)
    }
    with pytest.raises(InputError, match=r"no readable safetensors file"):
        fetching.wait([1])
    fetching.end()
    assert torch.equal(place.block(2).features, SharedFolder(own).block(2).features)
    place.end()
    assert not (tmp_path / "x").exists()


def test_the_exchange_is_for_workers(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("analyze", "models.py:net", "photos", "--out", "run", "--exchange", "s3://b")
    assert penult(*command) == 2
    assert "--exchange is for the workers of a cluster: give --cluster too" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_workers_that_hand_over_through_storage_make_the_same_bytes(
    work: Path, two_workers: str, tmp_path: Path
) -> None:
    assert analyze("one", "--eval", "data.py:images") == 0
    there = tmp_path / "storage"
    options = ("--eval", "data.py:images", "--cluster", two_workers, "--exchange")
    (work / "die.order").touch()
    assert analyze("two", *options, there.as_uri()) == 0
    assert not (work / "die.order").exists()
    whole = contents(work / "one")
    assert contents(work / "two") == whole
    assert list(there.iterdir()) == []


@pytest.mark.slow
def test_a_command_that_was_ended_goes_on_with_what_lies_in_storage(
    work: Path, two_workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert analyze("one") == 0
    there = tmp_path / "storage"
    options = ("--cluster", two_workers, "--exchange", str(there))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("penult.cluster.passing.unpacked", interrupted)
        assert analyze("two", *options) == 130
    (folder,) = there.iterdir()
    train = work / "two" / "features" / "train"
    for path in (shard_path(folder, 0), shard_path(train, 1), shard_path(folder, 1)):
        path.unlink(missing_ok=True)
    shard_path(train, 2).unlink(missing_ok=True)  # is fetched once more
    kept = shard_path(train, 0)
    kept_at = kept.stat().st_mtime_ns if kept.exists() else None
    assert analyze("two", *options) == 0
    assert contents(work / "two") == contents(work / "one")
    assert kept_at in (None, kept.stat().st_mtime_ns)
    assert list(there.iterdir()) == []

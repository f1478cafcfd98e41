"""Exchange: files that workers and the command hand to each other through object storage."""

from __future__ import annotations

import errno
import json
import secrets
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penult.errors import InputError
from penult.extras import import_extra
from penult.text import described, one_line

PATIENCE = 30.0  # seconds in which the storage has to answer
# What the libraries are called that fsspec needs for its usual addresses.
BUCKETS = {
    **{"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"},
    **{"abfs": "adlfs", "abfss": "adlfs", "az": "adlfs"},
}
DRIVERS = {**BUCKETS, "sftp": "paramiko", "ssh": "paramiko", "hdfs": "pyarrow"}


@dataclass(frozen=True)
class Exchange:
    """A folder in any storage that fsspec reads and writes, by an address that all machines know.

    Attributes:
        address: such as s3://bucket/folder; or the path of a folder.
    """

    address: str

    def check(self) -> None:
        """Refuse, before anything is begun, storage that cannot be used from here.

        Raises:
            InputError: no such kind of storage, or its library is not installed; a file cannot be
                written, read back and removed there within 30 seconds.
        """
        found: list[BaseException] = []

        def tried() -> None:
            try:
                self._try()
            except BaseException as error:  # raised again by the thread that waits
                found.append(error)

        self._storage()  # by this thread, since it imports
        thread = threading.Thread(target=tried, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        if thread.is_alive():
            raise InputError(
                f"{self.address} did not answer within {PATIENCE:g} seconds: look at the address, "
                "and at what this machine is allowed to read and write there"
            )
        for error in found:
            raise error

    def _try(self) -> None:
        name, content = f"probe-{secrets.token_hex(6)}", b"penult"
        with self._said("written and read"):
            storage, folder = self._made()
            storage.pipe_file(f"{folder}/{name}", content)
            same = storage.cat_file(f"{folder}/{name}") == content
            storage.rm_file(f"{folder}/{name}")
        if not same:
            raise InputError(f"{self.address} gives back other bytes than were written there")

    def inside(self, name: str) -> Exchange:
        """A folder in it."""
        return Exchange(f"{self.address.rstrip('/')}/{name}")

    def put(self, file: Path, name: str) -> None:
        """Copy a file into it."""
        with self._said(f"written ({name})"):
            storage, folder = self._made()
            storage.put_file(str(file), f"{folder}/{name}")

    def get(self, name: str, file: Path) -> None:
        """Copy a file out of it."""
        with self._said(f"read ({name})"):
            storage, folder = self._storage()
            storage.get_file(f"{folder}/{name}", str(file))

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        with self._said("read"):
            storage, folder = self._storage()
            storage.invalidate_cache()
            return bool(storage.isfile(f"{folder}/{name}"))

    def names(self) -> set[str]:
        """The files in it."""
        with self._said("read"):
            storage, folder = self._storage()
            storage.invalidate_cache()
            try:
                found = storage.ls(folder, detail=False)
            except FileNotFoundError:
                return set()
        return {str(path).rpartition("/")[2] for path in found}

    def has_tensors(self, name: str) -> bool:
        """Whether there is such a file of tensors, and all of it.

        A worker that died may have left a part of one in storage that shows unfinished files.
        """
        if not self.has(name):
            return False
        with self._said(f"read ({name})"):
            storage, folder = self._storage()
            path = f"{folder}/{name}"
            start = storage.cat_file(path, start=0, end=8)
            if len(start) < 8:
                return False
            n_header = struct.unpack("<Q", start)[0]
            size = storage.size(path)
            if n_header > size - 8:
                return False
            header = json.loads(storage.cat_file(path, start=8, end=8 + n_header))
            ends = [one["data_offsets"][1] for key, one in header.items() if key != "__metadata__"]
            return bool(8 + n_header + max(ends, default=0) == size)

    def clear(self) -> None:
        """Remove it with all its files."""
        with self._said("removed"):
            storage, folder = self._storage()
            storage.invalidate_cache()
            if storage.exists(folder):
                storage.rm(folder, recursive=True)

    def _storage(self) -> tuple[Any, str]:
        """What fsspec opens the address with, and the folder as it is called there."""
        fsspec = import_extra("fsspec", "cluster")
        if self._kind == "memory":
            raise InputError(f"{self.address} lies in the memory of one process: others need it")
        try:
            storage, folder = fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            library = DRIVERS.get(self._kind)
            remedy = f"pip install {library}" if library else one_line(str(error), 200)
            raise InputError(
                f"{self.address} needs a library that is not installed here: {remedy}"
            ) from error
        except ValueError as error:
            raise InputError(
                f"--exchange: expected an address such as s3://bucket/folder, gs://bucket/folder "
                f"or file:///folder, found {self.address!r} ({one_line(str(error), 200)})"
            ) from error
        except Exception as error:  # a driver may raise anything, of what it is configured by
            raise self._failed("opened", error) from error
        return storage, folder.rstrip("/")

    def _made(self) -> tuple[Any, str]:
        """Likewise, and the folder is there, where the storage has folders."""
        storage, folder = self._storage()
        if self._kind not in BUCKETS:  # where a bucket would be made of a name that is mistyped
            storage.makedirs(folder, exist_ok=True)
        return storage, folder

    @property
    def _kind(self) -> str:
        return self.address.split("://")[0] if "://" in self.address else "file"

    @contextmanager
    def _said(self, done: str) -> Iterator[None]:
        """Errors of a driver, which may be of any kind, in one line."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            raise self._failed(done, error) from error

    def _failed(self, done: str, error: Exception) -> InputError:
        return InputError(
            f"{self.address} cannot be {done}: {one_line(described(error), 300)}; look at the "
            "address, and at what this machine is allowed to read and write there"
        )

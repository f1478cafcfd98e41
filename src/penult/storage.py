"""Files that are either whole or absent: atomic writes, safetensors and JSON, one error style."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from penult.errors import InputError, NotWrittenError

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
T = TypeVar("T")
MOST_JSON = 1 << 29  # bytes: no document that penult writes comes near it


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, then rename it.

    A reader, or the next run after a crash, finds either the old file or the new one. Every writer
    has a temporary file of its own: of two at once, the later one's file stays, whole.

    Raises:
        NotWrittenError: the disk is full (says so) or read-only; the temporary file is removed.
    """
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors makes files that only their owner can read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise not_written(path, error) from error
    finally:
        # Also where the user's interrupt came between.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _flush_folder(path.parent)


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write into a new folder, then put it in the place of `folder` as a whole.

    Cut off at any moment, `folder` is the old one, the new one or absent. Writers of the same
    folder must exclude each other (see `penult.runs.run.Run.writing`).

    Raises:
        NotWrittenError: the disk is full or read-only.
    """
    new, old = temporary_beside(folder), temporary_beside(folder)
    try:
        new.mkdir(parents=True)
        fill(new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise not_written(folder, error) from error
    finally:
        for made in (new, old):
            shutil.rmtree(made, ignore_errors=True)
    _flush_folder(folder.parent)


def temporary_beside(path: Path) -> Path:
    """A name that nobody else has, in the same folder; `sweep` knows it by its form."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def sweep(folder: Path, within: Iterable[str] = ()) -> None:
    """Remove what killed writers have left behind in a folder and in some folders `within` it.

    Only for whoever holds the folder's lock: a living writer's temporary file looks the same.
    """
    for place in (folder, *(folder / name for name in within)):
        if not place.is_dir() or place.is_symlink():
            continue
        for left in place.iterdir():
            if _TEMPORARY.fullmatch(left.name):
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    with suppress(OSError):
                        left.unlink()


def not_written(path: Path, error: BaseException) -> NotWrittenError:
    """One line on a file or folder that could not be written."""
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return NotWrittenError(
            f"the disk is full: {path} could not be written; free some space and repeat the "
            "command, which goes on where it stopped"
        )
    reason = getattr(error, "strerror", None) or str(error)
    return NotWrittenError(f"{path} could not be written: {reason}")


def check_writable(path: Path) -> None:
    """Refuse a file or folder that cannot be written, before work whose result would be lost.

    Raises:
        NotWrittenError: the disk is full or read-only.
    """
    if path.is_dir():
        probe = temporary_beside(path / "probe")
    else:
        probe = temporary_beside(next(p for p in path.absolute().parents if p.exists()) / "probe")
    try:
        with probe.open("xb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    # Without this the rename itself may be lost when the power fails. Not every system allows it.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write one JSON document atomically."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def copied(document: T) -> T:
    """A copy of a JSON document, for whoever may change it: six times as fast as `deepcopy`."""
    if isinstance(document, dict):
        return {name: copied(value) for name, value in document.items()}  # type: ignore[return-value]
    if isinstance(document, list):
        return [copied(v) if isinstance(v, dict | list) else v for v in document]  # type: ignore[return-value]
    return document


def read_json(path: Path, format: str | None = None, most: int = MOST_JSON) -> dict[str, Any]:
    """Read a JSON document of at most `most` bytes, and of one `format` where that is given."""
    try:
        if not path.is_file():
            raise InputError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
        if path.stat().st_size > most:
            raise InputError(f"{path} is larger than {most >> 20} MiB: no document of penult")
        document = json.loads(path.read_text(encoding="utf-8"))
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no readable JSON document: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no JSON object")
    if format is not None:
        _check_format(path, document.get("format"), format)
    return document


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically, the same bytes for the same contents.

    Args:
        path: its folder is made where absent.
        tensors: from any device.
        metadata: at least `format`.
    """
    ready: dict[str, Tensor] = {}
    held: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        # The format takes no two tensors of one memory, such as those of a layer used twice.
        place = own.untyped_storage().data_ptr()
        ready[name] = own.clone() if place in held else own
        held.add(place)

    def write(temporary: Path) -> None:
        save_file(ready, temporary, dict(metadata))
        _sort_metadata(temporary)

    write_atomically(path, write)


def _sort_metadata(path: Path) -> None:
    # safetensors writes the metadata in the random order of a hash map; the same contents are to
    # give the same bytes. Reordering keys does not change the length of the header.
    with path.open("rb+") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "the header of a safetensors file does not fit its place"
        file.seek(8)
        file.write(text.ljust(length))


def read_tensors(
    path: Path, format: str, required: Iterable[str], only: Collection[str] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file of one `format` and check that the `required` tensors are there.

    Returns:
        The tensors (all, or those named by `only`) and the metadata.

    Raises:
        InputError: absent, truncated or no safetensors file, another format, a missing tensor.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no file")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            _check_format(path, metadata.get("format"), format)
            missing = [name for name in required if name not in names]
            if missing:
                raise InputError(f"{path} holds no `{missing[0]}`; it holds {', '.join(names)}")
            return {n: file.get_tensor(n) for n in names if only is None or n in only}, metadata
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no readable safetensors file: {error}") from error


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, of whatever format.

    Raises:
        InputError: absent, truncated or no safetensors file.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no file")
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no readable safetensors file: {error}") from error


def _check_format(path: Path, found: str | None, expected: str) -> None:
    if found != expected:
        raise InputError(f"{path}: expected format {expected}, found {found or 'none'}")


def difference(
    folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], remedy: str
) -> str:
    """One line that names the first difference between two identities, and what to do."""
    keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    key = keys[0]
    before, now = found.get(key), wanted.get(key)
    hashed = any(re.search(r"\b[0-9a-f]{16,}\b", str(value)) for value in (before, now))
    differ = "not the same, or changed since" if hashed else ""
    return (
        f"{folder} holds an analysis that differs in its {key} "
        f"({differ or f'{before}; now {now}'}): {remedy}"
    )

"""Files that are either whole or absent: atomic writes, safetensors and JSON, one error style."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from penult.errors import InputError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, then rename it.

    A reader, or the next run after a crash, finds either the old file or the new one.

    Raises:
        InputError: the disk is full (says how much is free); the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise InputError(
                f"the disk is full: {path} could not be written; free some space and run the same "
                "command again, it goes on where it stopped"
            ) from error
        raise InputError(f"{path} could not be written: {error}") from error
    _flush_folder(path.parent)


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


def read_json(path: Path, format: str | None = None) -> dict[str, Any]:
    """Read a JSON document; with `format`, refuse one whose `format` key says otherwise."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable JSON document: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no JSON object")
    if format is not None:
        _check_format(path, document.get("format"), format)
    return document


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically; tensors come from any device."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(ready, temporary, dict(metadata)))


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


def _check_format(path: Path, found: str | None, expected: str) -> None:
    if found != expected:
        raise InputError(f"{path}: expected format {expected}, found {found or 'none'}")

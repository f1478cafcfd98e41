"""Checkpoint: what was saved in a file, whatever its name says, read without running its code."""

from __future__ import annotations

import json
import pickle
import re
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from penult.errors import InputError
from penult.network.unpickling import pickle_with_stand_ins, user_modules
from penult.text import described as one_line
from penult.text import some

# How the restricted unpickler words its refusals; the name of what it refuses comes first.
_REFUSALS = (
    r"GLOBAL (\S+) was not an allowed global",
    r"unsupported GLOBAL (\S+) whose module",
    r"for unrecognized function (.+)",
    r"via `add_safe_globals`,? but got (.+)",
    r"Cannot use ``?weights_only=True``? with (TorchScript archives)",
)
# What a Hugging Face folder calls its weights, the first that is there counts.
_IN_FOLDERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_OTHER_KINDS = (
    (rb"\s*<(!doctype|html|\?xml|head|body)", "a web page: the download failed or needs a login"),
    (rb"version https://git-lfs", "a pointer of Git LFS to the file: run git lfs pull"),
    (rb"\x89HDF", "an HDF5 file, as Keras writes them: expected weights of PyTorch"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ", "compressed: unpack it first"),
    (rb"\x93NUMPY", "a NumPy array: expected names with tensors"),
    (rb"GGUF", "a GGUF file: expected weights of PyTorch"),
)
_LONGEST_INDEX = 64 << 20


def read_checkpoint(path: Path, *, trust: bool = False, importable: Path | None = None) -> Any:
    """What was saved in `path`, tensors on the CPU; runs no code from the file unless `trust`.

    The contents decide how it is read, whatever its suffix.

    Args:
        path: a file of safetensors or of `torch.save`, an index of several of them
            (`model.safetensors.index.json`), or a Hugging Face folder with either.
        trust: unpickle arbitrary objects, which runs whatever code the file holds. Classes that
            cannot be found become stand-ins.
        importable: folder whose modules can be imported meanwhile, the user's own.

    Raises:
        InputError: no such file, not a checkpoint, damaged, or it needs trust; each in one line.
    """
    if path.is_dir():
        inside = [path / name for name in _IN_FOLDERS if (path / name).is_file()]
        if not inside:
            raise InputError(
                f"{path} is a folder without {' or '.join(_IN_FOLDERS[::2])}; expected a "
                "checkpoint file"
            )
        path = inside[0]
    if not path.exists():
        raise InputError(f"{path} not found; expected a checkpoint file")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}") from error
    if not start:
        raise InputError(f"{path} is empty; expected a checkpoint file")
    safe = _is_safetensors(start)
    if not safe and start.lstrip()[:1] == b"{":
        return _read_index(path, trust, importable)
    if not safe:
        _check_kind(path, start)
    try:
        if safe or (path.suffix == ".safetensors" and not _is_torch(start)):
            return load_file(path)
        return _load(path, start, trust, importable)
    # A damaged pickle fails in as many ways as there are instructions in it.
    except Exception as error:
        refused = None if trust else _refused(error)
        if refused is None:
            raise InputError(
                f"{path} cannot be read as a checkpoint (is it whole, and of .safetensors or "
                f"torch.save?): {_cause(error)}"
            ) from error
        raise InputError(
            f"{path} holds more than weights: reading it would unpickle {refused}, and that can "
            "run any code the file brings; give --trust-checkpoint if you trust where it comes from"
        ) from error


def _load(path: Path, start: bytes, trust: bool, importable: Path | None) -> Any:
    # Only the zip format of torch.save can be mapped into memory.
    mapped = start[:4] == b"PK\x03\x04"
    how: dict[str, Any] = {"weights_only": True}
    if trust:
        scripts = user_modules(importable)
        how = {"weights_only": False, "pickle_module": pickle_with_stand_ins(scripts)}
    with warnings.catch_warnings(), _also_importable(importable if trust else None):
        # Advice on how to call torch, for programmers; what went wrong ends up below.
        warnings.simplefilter("ignore")
        if path.suffix == ".safetensors":
            # By its name torch would take it for what it is not.
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", **how)
        return torch.load(str(path), map_location="cpu", mmap=mapped, **how)


@contextmanager
def _also_importable(folder: Path | None) -> Iterator[None]:
    """The user's folder on the import path: whole networks name the modules beside the factory."""
    if folder is None:
        yield
        return
    entry, before = str(folder), set(sys.modules)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
        # Another folder's module of this name is not to be taken for it later.
        for name in set(sys.modules) - before:
            place = getattr(sys.modules[name], "__file__", None)
            if place and Path(place).resolve().is_relative_to(folder):
                del sys.modules[name]


def _read_index(path: Path, trust: bool, importable: Path | None) -> dict[str, Any]:
    """All files that an index names, together."""
    try:
        if path.stat().st_size > _LONGEST_INDEX:
            raise ValueError("it is too long")
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({str(name) for name in places.values()})
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as a checkpoint: it is JSON, but no index with a weight_map "
            f"({one_line(error)})"
        ) from error
    outside = [name for name in files if not name or re.search(r"[/\\]|^\.\.?$", name)]
    if outside:
        raise InputError(f"{path} names files that do not lie beside it: {some(outside)}")
    absent = [name for name in files if not (path.parent / name).is_file()]
    if absent:
        raise InputError(
            f"{path} names {len(files)} files, of which {len(absent)} are not there "
            f"({some(absent, 3)}): put them beside it"
        )
    found: dict[str, Any] = {}
    for name in files:
        shard = path.parent / name
        part = read_checkpoint(shard, trust=trust, importable=importable)
        if not isinstance(part, dict):
            raise InputError(f"{shard} holds no weights: expected names with tensors")
        found |= part
    return found


def _is_safetensors(start: bytes) -> bool:
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32


def _is_torch(start: bytes) -> bool:
    """Whether a file begins as a zip archive or as a pickle does."""
    return start[:2] == b"PK" or (start[:1] == b"\x80" and start[1] in range(2, 6))


def _check_kind(path: Path, start: bytes) -> None:
    """Name what a file is that people take for a checkpoint."""
    for pattern, what in _OTHER_KINDS:
        if re.match(pattern, start, re.IGNORECASE):
            raise InputError(f"{path} cannot be read as a checkpoint: it is {what}")
    # The oldest format of torch.save was an archive too, with these names.
    if start[257:262] == b"ustar" and tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            first = archive.next()
        if first is not None and first.name not in ("sys_info", "pickle", "storages", "tensors"):
            raise InputError(f"{path} is an archive that holds {first.name}: unpack it first")
    if start[:2] == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive_:
            names = archive_.namelist()
        if not any(name.endswith(("data.pkl", "constants.pkl")) for name in names):
            raise InputError(
                f"{path} is a zip archive that holds {some(names, 3) or 'nothing'}, and no "
                "checkpoint of torch.save: unpack it and give the file that is meant"
            )


def _refused(error: Exception) -> str | None:
    """Name of what the restricted unpickler refused to load; None where the file is damaged."""
    if not isinstance(error, pickle.UnpicklingError | RuntimeError):
        return None
    matches = (re.search(pattern, str(error)) for pattern in _REFUSALS)
    return next((match[1].rstrip(".") for match in matches if match), None)


def _cause(error: Exception) -> str:
    # torch wraps the reason into paragraphs on how to switch its protection off.
    _, wrapped, reason = str(error).rpartition("WeightsUnpickler error: ")
    return one_line(type(error)(reason.splitlines()[0])) if wrapped else one_line(error)

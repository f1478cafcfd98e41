"""Data sets that libraries know: Hugging Face's and torchvision's."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

from penult.data.dataset import DatasetImages, map_style
from penult.errors import InputError
from penult.extras import import_extra, import_torchvision
from penult.text import described, nearest, some

SAVED, SAVED_PARTS = "state.json", "dataset_dict.json"
UNSAFE = frozenset({"LSUN", "LSUNClass"})
SPLIT_KEYS = ("split", "image_set")
_OFFER = " You can use download=True to download it"
SPLITS = ("train", "test", "val", "validation", "valid", "extra", "unlabeled")


class LibraryImages(DatasetImages):
    """A data set that a library opened; it says how to open it again.

    Args:
        dataset: map-style.
        labelled: False passes over labels.
        about: what `describe` adds: "path" of a saved one, or "source", what the user named.
        texts: whether the samples are texts.
        multi_label: see `DatasetImages`.
    """

    def __init__(
        self,
        dataset: Any,
        labelled: bool,
        about: dict[str, Any],
        texts: bool = False,
        multi_label: bool | None = None,
    ) -> None:
        self._about = about
        super().__init__(dataset, labelled, texts=texts, multi_label=multi_label)

    def describe(self) -> dict[str, Any]:
        """Kind, where it comes from, numbers and fingerprint."""
        found = super().describe()
        del found["source"]
        return found | self._about


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder is what `Dataset.save_to_disk` of Hugging Face writes."""
    return any((path / name).is_file() for name in (SAVED, SAVED_PARTS))


def open_saved(
    path: Path, labelled: bool, texts: bool = False, multi_label: bool | None = None
) -> LibraryImages:
    """A Hugging Face data set in the folder where it was saved.

    Raises:
        InputError: it holds several parts, or cannot be read.
    """
    if _has_parts(path):
        parts = _parts(path)
        if len(parts) == 1:
            return open_saved(path / parts[0], labelled, texts, multi_label)
        first = "train" if "train" in parts else parts[0]
        other = next((part for part in parts if part != first), None)
        more = f", and measure on the other with --eval {path / other}" if other else ""
        raise InputError(
            f"{path} holds the parts {some(parts)} of a data set: give {path / first} as DATA{more}"
        )
    datasets = import_extra("datasets", "hf")
    try:
        found = datasets.load_from_disk(os.fspath(path))
    except Exception as error:  # the library raises whatever a damaged file leads it to
        raise InputError(f"{path} cannot be read as a saved data set: {described(error)}") from None
    about = {"path": str(path)}
    return LibraryImages(map_style(found, str(path)), labelled, about, texts, multi_label)


def open_hub(
    spec: str, labelled: bool, texts: bool = False, multi_label: bool | None = None
) -> LibraryImages:
    """`hf:NAME[:SPLIT]`, a data set of the Hugging Face hub; the split `train` where none is named.

    Raises:
        InputError: no such data set or split, or the hub cannot be reached.
    """
    name, _, split = spec.removeprefix("hf:").partition(":")
    if not name:
        raise InputError(f"{spec!r} names no data set: expected hf:NAME or hf:NAME:SPLIT")
    if is_saved_dataset(Path(name)):
        place = Path(name) / split if split else Path(name)
        if not place.is_dir():
            has = f"has {some(_parts(Path(name)))}" if _has_parts(Path(name)) else "has no parts"
            raise InputError(f"{spec}: no part is called {split!r}; {name} {has}")
        return open_saved(place, labelled, texts, multi_label)
    datasets = import_extra("datasets", "hf")
    try:
        found = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # the library raises whatever the hub or a file leads it to
        raise InputError(f"{spec} cannot be opened: {described(error)}") from None
    return LibraryImages(map_style(found, spec), labelled, {"source": spec}, texts, multi_label)


def open_torchvision(spec: str, labelled: bool, multi_label: bool | None = None) -> LibraryImages:
    """`torchvision:NAME:ROOT[:SPLIT]`, a data set of torchvision that lies below a folder.

    Nothing is downloaded. SPLIT is given to the argument that the data set has for it (`train`,
    `split` or `image_set`); where none is named, `train`.

    Raises:
        InputError: no such data set, or its files are not there.
    """
    name, _, rest = spec.removeprefix("torchvision:").partition(":")
    root, colon, split = rest.rpartition(":")
    if not colon or split not in SPLITS:
        root, split = rest, "train"
    import_torchvision()
    import torchvision.datasets

    known = sorted(set(torchvision.datasets.__all__) - UNSAFE)
    if name in UNSAFE:
        raise InputError(
            f"torchvision's {name} unpickles a file of its folder, which could run code, without "
            "checking it: call it in a function of yours, file.py:function"
        )
    if name not in known:
        near = nearest(name, known)
        hint = f": did you mean {some(near)}?" if near else f"; it has {some(known, 8)}"
        raise InputError(f"torchvision has no data set {name!r}{hint}")
    if not root:
        raise InputError(f"{spec}: expected torchvision:{name}:ROOT, the folder of its files")
    factory = getattr(torchvision.datasets, name)
    parameters = inspect.signature(factory).parameters
    if "root" not in parameters:
        raise InputError(f"torchvision's {name} has no folder of files: call it in a function")
    needed = [
        key
        for key, one in parameters.items()
        if one.default is one.empty
        and one.kind is one.POSITIONAL_OR_KEYWORD
        and key not in ("root", "train", *SPLIT_KEYS)
    ]
    if needed:
        raise InputError(
            f"torchvision's {name} needs the arguments {some(needed)}: call it in a function of "
            "yours, file.py:function"
        )
    arguments: dict[str, Any] = {}
    if "train" in parameters and split not in ("train", "test"):
        raise InputError(f"torchvision's {name} has the parts train and test, found {split!r}")
    if "train" in parameters:
        arguments["train"] = split == "train"
    elif which := next((key for key in SPLIT_KEYS if key in parameters), None):
        arguments[which] = split
    try:
        found = factory(root, **arguments)
    except Exception as error:  # the library raises whatever is missing or damaged
        why = described(error).replace(_OFFER, "").rstrip(".")
        raise InputError(
            f"torchvision's {name} cannot be opened in {root}, split {split}: {why}; its files "
            "must be there: nothing is downloaded"
        ) from None
    about = {"source": spec}
    return LibraryImages(map_style(found, spec), labelled, about, multi_label=multi_label)


def _has_parts(path: Path) -> bool:
    return (path / SAVED_PARTS).is_file()


def _parts(path: Path) -> list[str]:
    try:
        found = json.loads((path / SAVED_PARTS).read_text(encoding="utf-8"))["splits"]
        parts = [str(part) for part in found]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        parts = []
    parts = parts or sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    if not parts:
        raise InputError(f"{path}/{SAVED_PARTS} names no parts: it is damaged")
    return parts

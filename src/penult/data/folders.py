"""Class folders: which folders are the classes, and what a person should know of their order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penult.data.image import printable
from penult.errors import InputError
from penult.text import counted, one_line, some

_PART = re.compile(
    r"(train|training|val|valid|validation|dev|test|testing|eval|evaluation)"
    r"([-_ ]?(set|data|split|images|\d+))?"
)
_WORDS = re.compile(r"[-_ .]+")
_FOLD = re.compile(r"(fold|split|part)\d+")


@dataclass(frozen=True)
class ClassFolders:
    """The classes of images in folders.

    Attributes:
        labels: (n_samples,) int64.
        names: of the classes, in alphabetical order; those of empty folders too.
    """

    labels: NDArray[np.int64]
    names: tuple[str, ...]


def class_folders(
    path: object, images: list[str], folders: set[str], table: str | None = None
) -> ClassFolders:
    """Labels of the images and the names of their classes, by the folders at the root.

    Where one folder holds all of them, the classes are those inside it.

    Args:
        path: the root, for messages.
        images: their paths below the root.
        folders: all folders below the root.
        table: what lies there and could list the images, for the error.

    Raises:
        InputError: images outside of class folders; a root that holds `train` and `val`.
    """
    skip = 0
    while True:
        tops = sorted({_top(name, skip) for name in folders if len(name) > skip})
        if len(tops) != 1 or any(name.count("/", skip) < 2 for name in images):
            break
        skip += len(tops[0]) + 1
    _refuse_parts(f"{path}/{images[0][:skip]}", [name[skip:] for name in images])
    loose = [printable(name) for name in images if "/" not in name[skip:]]
    if loose:
        listed = f"give {table} as DATA if it lists them, " if table else ""
        raise InputError(
            f"{path} holds {len(loose)} images outside of class folders ({some(loose, 3)}): "
            f"{listed}put each class's images in a folder of its own, or use the network's own "
            "predictions as labels with --labels predicted"
        )
    numbers = {name: number for number, name in enumerate(tops)}
    labels = np.fromiter((numbers[_top(name, skip)] for name in images), np.int64, len(images))
    return ClassFolders(labels, tuple(map(printable, tops)))


def is_part(name: str) -> bool:
    """Whether a name is that of a part of a data set, such as train."""
    return _PART.fullmatch(name.casefold()) is not None


def parts_among(names: Sequence[str]) -> list[str]:
    """Names that are those of parts: train, test; seg_train, seg_test; fold1, fold2."""
    found = [name for name in names if is_part(name)]
    if len(found) > 1:
        return found
    # The same words around a part's own: `seg_train` and `seg_test`, not `bullet_train` alone.
    around: dict[str, list[str]] = {}
    for name in names:
        words = _WORDS.split(name.casefold())
        for i, word in enumerate(words):
            if is_part(word) or _FOLD.fullmatch(word):
                around.setdefault(" ".join([*words[:i], *words[i + 1 :]]), []).append(name)
    return max((same for same in around.values() if len(same) > 1), key=len, default=[])


def natural_order(names: Sequence[str]) -> list[str]:
    """Names in the order in which a person counts: 1, 2, 10, whether capitals or not."""
    return sorted(names, key=lambda name: (counted(name.casefold()), name))


def order_warning(names: Sequence[str]) -> str | None:
    """What to say where class folders are in alphabetical order and a person counts otherwise."""
    natural = natural_order(names)
    if sorted(names) == natural:
        return None
    return (
        f"the class folders are taken in alphabetical order ({_first(names)}), as torchvision's "
        f"ImageFolder does: if the network's classes are in the order {_first(natural)}, "
        "give --class-names natural"
    )


def _first(names: Sequence[str]) -> str:
    return ", ".join(one_line(name, 30) for name in names[:4]) + (", …" if len(names) > 4 else "")


def _refuse_parts(root: str, images: list[str]) -> None:
    """Refuse a root whose folders are the parts of a data set, such as train and val."""
    tops = sorted({_top(name, 0) for name in images if "/" in name})
    parts = parts_among(tops)
    if len(parts) < 2:
        return
    inside: dict[str, set[str]] = {name: set() for name in parts}
    for name in images:
        pieces = name.split("/")
        if pieces[0] in inside and len(pieces) > 2:
            inside[pieces[0]].add(pieces[1])
    shared = set.intersection(*inside.values())
    if len(parts) < len(tops) and not shared:
        return
    parts.sort(key=lambda name: ("train" not in name.casefold(), not inside[name], name))
    root = root.rstrip("/")
    held_out = next((name for name in parts[1:] if inside[name]), None)
    other = f", and measure on the other with --eval {root}/{held_out}" if held_out else ""
    raise InputError(
        f"{root} holds the parts {some(sorted(parts))} of a data set and not its classes: give "
        f"{root}/{parts[0]} as DATA{other}"
    )


def _top(name: str, skip: int) -> str:
    return name[skip:].split("/", 1)[0]

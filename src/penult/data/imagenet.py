"""ImageNet's classes: WordNet ids, their order and their English names, by timm's tables."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from penult.data.class_list import is_wordnet_id
from penult.errors import InputError
from penult.text import some

_USUAL = "imagenet"


def ids_in_order(n_classes: int, ids: Sequence[str]) -> list[str] | None:
    """The WordNet ids of all classes of a network, in the order of its logits.

    Args:
        n_classes: of the network: 1,000, or of one of ImageNet's smaller or larger sets.
        ids: of the classes that the data has, which must all be among them.

    Returns:
        None where these are no such ids, and where no table fits.

    Raises:
        InputError: several tables fit, and give other places.
    """
    if not are_wordnet_ids(ids):
        return None
    fitting = {name: own for name, own in _lists(n_classes).items() if set(ids) <= set(own)}
    if len({tuple(map(own.index, ids)) for own in fitting.values()}) > 1:
        raise InputError(
            f"the {len(ids)} WordNet ids of the data are in {some(list(fitting))}, each of "
            f"{n_classes} classes: give the network's classes in their order by --class-names FILE"
        )
    for name, own in fitting.items():
        if name != _USUAL and len(ids) < n_classes:
            warnings.warn(
                f"the classes are placed by their WordNet ids as in timm's table {name}: if the "
                "network has other classes, give them in their order by --class-names FILE",
                stacklevel=4,
            )
        return own
    return None


def usual_ids(n_classes: int) -> list[str] | None:
    """The WordNet ids of the usual 1,000 classes; None for another number."""
    return _lists(n_classes).get(_USUAL)


def in_english(ids: Sequence[str]) -> list[str]:
    """The first English name of each WordNet id; the id itself where it is not known."""
    return [next(iter(every_name(key)), key) for key in ids]


def every_name(key: str) -> tuple[str, ...]:
    """The English names of a WordNet id."""
    return _lemmas().get(key, ())


def synonyms(ids: Sequence[str]) -> dict[str, int]:
    """The place of each English name that is that of one class only."""
    counts = Counter(name for key in ids for name in every_name(key))
    return {
        name: place
        for place, key in enumerate(ids)
        for name in every_name(key)
        if counts[name] == 1
    }


def are_wordnet_ids(names: Sequence[str]) -> bool:
    """Whether all names are like n01440764."""
    return bool(names) and all(map(is_wordnet_id, names))


def tables() -> Path | None:
    """The folder of timm's tables, found without importing timm; None where it is not installed."""
    spec = find_spec("timm")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) / "data" / "_info" if places else None


@cache
def _lists(n_classes: int) -> Mapping[str, list[str]]:
    """The lists of so many ids, by name."""
    folder, found = tables(), {}
    for path in sorted(folder.glob("*_synsets.txt")) if folder else ():
        ids = path.read_text(encoding="utf-8").split()
        if len(ids) == n_classes:
            found[path.name.removesuffix("_synsets.txt")] = ids
    return found


@cache
def _lemmas() -> Mapping[str, tuple[str, ...]]:
    folder = tables()
    path = folder / "imagenet_synset_to_lemma.txt" if folder else None
    lines = path.read_text(encoding="utf-8").splitlines() if path and path.is_file() else []
    pairs = (line.partition("\t") for line in lines)
    return {
        key: tuple(name.strip() for name in names.split(",") if name.strip())
        for key, _, names in pairs
    }

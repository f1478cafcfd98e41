"""Classes of the data put in the order of the network's logits."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from penult.data.class_list import ClassList, first_name
from penult.data.folders import natural_order, order_warning
from penult.data.image import ImageData
from penult.data.imagenet import (
    are_wordnet_ids,
    every_name,
    ids_in_order,
    in_english,
    synonyms,
    tables,
    usual_ids,
)
from penult.data.labels import checked_labels
from penult.data.words import BOOLEANS, SampleLabelError
from penult.errors import InputError
from penult.text import nearest, some


def align_classes(
    n_classes: int,
    data: ImageData,
    evaluation: ImageData | None = None,
    given: ClassList | Sequence[str] | None = None,
    known: Sequence[str] | None = None,
) -> ClassPlaces:
    """The classes in the order of the logits; labels of the data are put in that order.

    Class folders are placed by what the user gives, by the names that the network's library knows,
    by their WordNet ids among those of ImageNet, or else, if there are as many as logits, in their
    own order. Empty class folders count where they make up the number.

    Args:
        n_classes: of the network.
        data: analysed images; `labels` and `class_names` are changed in place.
        evaluation: likewise.
        given: what the user says of the classes, from `class_list`, or their names.
        known: names that the network's library gives, or None.

    Raises:
        InputError: class folders that do not fit the network, or unknown ones in `evaluation`.
    """
    said = _said(given, n_classes)
    places = _places(n_classes, data, said, known)
    for images, what in ((data, "the data"), (evaluation, "the evaluation data")):
        if images is None:
            continue
        if images.class_names is None:
            if images.labels is not None and images.multi_label:
                _widen(images, n_classes, places.names, what)
            elif images.labels is not None:
                try:
                    checked_labels(images.labels, len(images), n_classes)
                except SampleLabelError as error:
                    raise InputError(error.of(f"sample {images.id(error.index)}")) from None
            continue
        present = _present(images)
        numbers = [places.number(name) for name in images.class_names]
        if images.class_names == BOOLEANS and numbers == [None, None]:
            numbers = [0, 1]
        unknown = [n for n, i in zip(images.class_names, numbers, strict=True) if i is None]
        if unmet := [name for name in unknown if name in present]:
            raise InputError(
                f"{what} has classes that the network's {n_classes} do not include: "
                f"{some(unmet)}; expected {some(list(places.names))}"
            )
        place = np.array([-1 if i is None else i for i in numbers], dtype=np.int64)
        images.align(place, places.names)
    return places


def _widen(images: ImageData, n_classes: int, names: tuple[str, ...], what: str) -> None:
    """Give multi-hot labels without class names a column for each class of the network."""
    assert images.labels is not None
    found = images.labels.shape[1]
    if found > n_classes:
        raise InputError(
            f"{what} has labels of {found} classes and the network only {n_classes}: give a "
            "network for these classes, or data with fewer"
        )
    images.align(np.arange(found), names)


class ClassPlaces:
    """Where a class stands among the logits, by whatever it is called.

    Args:
        names: as people read them, in the order of the logits.
        keys: other names, which come first.
    """

    def __init__(self, names: Sequence[str], keys: Mapping[str, int] | None = None) -> None:
        self.names = distinct(names)
        self._exact = {name: i for i, name in enumerate(names)}
        counts = Counter(names)
        self._exact = {name: i for name, i in self._exact.items() if counts[name] == 1}
        self._exact |= {name: i for i, name in enumerate(self.names)} | dict(keys or {})
        whole_and_first = [({name, name.split(",")[0]}, i) for name, i in self._exact.items()]
        others = [({*name.split(",")[1:]}, i) for name, i in self._exact.items()]
        self._by_form = _by_form(others) | _by_form(whole_and_first)

    def number(self, name: str) -> int | None:
        """The class of this name; None where there is none."""
        found = self._exact.get(name)
        return self._by_form.get(_loose(name)) if found is None else found

    def require(self, name: str) -> int:
        """The class of this name, or of this number where none has the name.

        Raises:
            InputError: there is none.
        """
        found = self.number(name)
        if found is None and name.isdecimal() and int(name) < len(self.names):
            found = int(name)
        if found is None:
            near = nearest(name, list(self.names))
            hint = f": did you mean {some(near)}?" if near else ""
            raise InputError(f"the network has no class {name!r}{hint}")
        return found

    def holds(self, names: Sequence[str]) -> bool:
        """Whether these are different classes."""
        numbers = [self.number(name) for name in names]
        return None not in numbers and len(set(numbers)) == len(numbers)


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Tell equal names apart by their class index, as ImageNet's two cranes need."""
    counts = Counter(names)
    return tuple(f"{name} ({i})" if counts[name] > 1 else name for i, name in enumerate(names))


def _by_form(names: Sequence[tuple[set[str], int]]) -> dict[str, int | None]:
    """Classes by their names as `_loose` has them; None for a name of several classes."""
    found: dict[str, int | None] = {}
    for forms, i in names:
        for form in set(map(_loose, forms)):
            found[form] = i if found.get(form, i) == i else None
    return found


def _loose(name: str) -> str:
    """A name without what programs change: capitals, and underscores for spaces."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _said(given: ClassList | Sequence[str] | None, n_classes: int) -> ClassList:
    if given is None:
        return ClassList()
    said = given if isinstance(given, ClassList) else ClassList(tuple(map(first_name, given)))
    if said.names is None or len(said.names) == n_classes:
        return said
    if said.renamed:
        return ClassList(renamed=said.renamed)
    raise InputError(f"{len(said.names)} class names are given for the {n_classes} of the network")


def _present(images: ImageData) -> list[str]:
    """The classes that have images, as far as the labels are known."""
    names = images.class_names or ()
    if images.labels is None:
        return list(names)
    if images.multi_label:
        counts = images.labels.sum(0)
    else:
        counts = np.bincount(images.labels, minlength=len(names))
    return [name for name, n in zip(names, counts, strict=True) if n]


def _places(
    n_classes: int, data: ImageData, said: ClassList, known: Sequence[str] | None
) -> ClassPlaces:
    found = data.class_names
    if said.names is not None:
        return ClassPlaces(said.names, {**_places_of_ids(said.names, found), **said.keys})
    if found is None:
        return ClassPlaces(known if known is not None else list(map(str, range(n_classes))))
    present = _present(data)
    library = None if known is None else ClassPlaces(list(map(first_name, known)))
    if library is not None and library.holds(present):
        return _renamed(library.names, said, {n: library.number(n) for n in present})
    if library is not None and found == BOOLEANS and n_classes == len(BOOLEANS):
        return library
    if (ids := ids_in_order(n_classes, present)) is not None:
        names = in_english(ids) if known is None else [name.split(",")[0] for name in known]
        return _renamed(names, said, {key: i for i, key in enumerate(ids)})
    usual = usual_ids(n_classes) if known is None and present else None
    if usual and (english := _english(usual)).holds(present):
        warnings.warn(
            "the classes are placed by their English names among ImageNet's: if the network has "
            "other classes, give them in their order by --class-names FILE",
            stacklevel=3,
        )
        return _renamed(english.names, said, {n: english.number(n) for n in present})
    fitting = next((names for names in (found, present) if len(names) == n_classes), None)
    if fitting is None:
        raise InputError(_misfit(n_classes, present))
    if said.natural:
        fitting = natural_order(fitting)
    elif data.named_by_folders and (warning := order_warning(fitting)):
        warnings.warn(warning, stacklevel=3)
    keys = {name: i for i, name in enumerate(fitting)}
    return _renamed(in_english(fitting) if are_wordnet_ids(fitting) else fitting, said, keys)


def _english(ids: Sequence[str]) -> ClassPlaces:
    """ImageNet's classes by any of their English names, or by their ids."""
    return ClassPlaces(in_english(ids), synonyms(ids) | {key: i for i, key in enumerate(ids)})


def _places_of_ids(names: Sequence[str], found: Sequence[str] | None) -> dict[str, int]:
    """Where the WordNet ids that the data has stand among names that a user gives in English."""
    if not are_wordnet_ids(found or ()):
        return {}
    places, ids = ClassPlaces(names), ids_in_order(len(names), found or ()) or []
    own_names, known = synonyms(ids or found or ()), {}
    for key in found or ():
        numbers = {places.number(name) for name in every_name(key) if name in own_names}
        if key in ids and names[ids.index(key)] in every_name(key):  # also where two share a name
            numbers = {ids.index(key)}
        if len(numbers - {None}) == 1:
            known[key] = (numbers - {None}).pop()
    return {key: number for key, number in known.items() if number is not None}


def _renamed(names: Sequence[str], said: ClassList, keys: Mapping[str, int | None]) -> ClassPlaces:
    """Places with the names that people are to read."""
    shown, counts = list(names), Counter(names)
    numbers = {key: i for key, i in keys.items() if i is not None}
    for key, i in numbers.items():
        shown[i] = said.renamed.get(key, shown[i])
    numbers = {name: i for i, name in enumerate(names) if counts[name] == 1} | numbers
    return ClassPlaces(shown, numbers)


def _misfit(n_classes: int, found: Sequence[str]) -> str:
    shown = f"the data has {len(found)} classes ({some(list(found))}) and the network"
    if len(found) > n_classes:
        return (
            f"{shown} only {n_classes}: give a network for these classes, such as with --set "
            f"num_classes={len(found)}, or data with fewer class folders"
        )
    if are_wordnet_ids(found) and tables() is None:
        return (
            f"{shown} {n_classes}: the ids are placed among ImageNet's classes where timm is "
            "installed: pip install 'penult[vision]'; or give --class-names FILE"
        )
    return (
        f"{shown} {n_classes}: give --class-names FILE, the network's class names in the order of "
        "its logits, of which the class folders are some"
    )

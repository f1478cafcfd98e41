"""Map-style data sets: of torch, torchvision, Hugging Face, or of the user."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset, default_collate

from penult.data.class_list import first_name
from penult.data.image import (
    UNLABELLED,
    ImageData,
    ImageFaultError,
    Label,
    Loaded,
    described_as,
    digest_of,
    placed,
)
from penult.data.items import ItemLayout, layout_of
from penult.data.labels import NoLabelError, label_of, label_range, labels_of
from penult.data.limit import first_of, is_stream
from penult.data.multi_hot import (
    SeveralLabelsError,
    multi_hot_labels,
    row_of,
    several_notes,
)
from penult.errors import InputError
from penult.text import described as one_line
from penult.text import some
from penult.user_code import call_object, code_digest, load_object

LOOKED_AT = 16
LOOKED_AT_TWICE = 8  # a mirrored image is as it was half of the time
CHANGES = (
    "the samples change from one look to the next, as with augmentation left on: turn it off, "
    "since what is analysed cannot be looked up again"
)


class DatasetImages(ImageData):
    """A map-style data set whose items hold an image and a label.

    Items are (image, label), longer tuples, or dicts; see `layout_of`. A label is known when its
    sample is loaded. Where the data set also has all of them as `targets` or `labels`, and the
    first samples looked at agree with it, `labels` is this list; otherwise the samples' own count.

    Args:
        dataset: anything with a length and items.
        labelled: False passes over labels; items may then be images alone.
        spec: the `file.py:function` that returned it, by which another process opens it again.
        limit: how many samples were taken of what it returned, if that is a stream.
        texts: whether items hold a text in place of an image.
        multi_label: whether samples may have several labels, as vectors of 0 and 1 or as lists of
            classes; None to tell by the list of labels, or by the samples looked at.

    Raises:
        InputError: samples list their classes, and nothing says how many there are.
    """

    def __init__(
        self,
        dataset: Any,
        labelled: bool = True,
        spec: str | None = None,
        limit: int | None = None,
        texts: bool = False,
        multi_label: bool | None = None,
    ) -> None:
        self._n_classes: int | None = None
        self._dataset = dataset
        self._holds_texts = texts
        self._spec = spec
        self._limit = limit
        self._place: NDArray[np.int64] | None = None
        own: tuple[str, ...] | None = None
        self.labelled = labelled
        self.labels = self.class_names = None
        self._layout = _layout(dataset, labelled, texts)
        listed: NDArray[Any] | None = None
        if labelled:
            own = _class_names(dataset, self._layout.label)
            listed, self.class_names = _listed(dataset, self._layout.label, own, multi_label)
            self.multi_label = self._is_multi_label(listed, multi_label)
        self._said = multi_label if self.multi_label else None
        self._know(self.class_names)
        if self.multi_label:
            self._n_classes = self._width(listed)
        seen, contents, changes = self._look()
        notes = [self._layout.note, CHANGES if changes else None]
        if listed is not None:
            wrong = [i for i, label in seen.items() if not np.array_equal(label, listed[i])]
            if not wrong:
                self.labels = listed
            else:
                self._know(own)
                notes.append(
                    f"the data set's own list of labels differs from what its samples say (sample "
                    f"{wrong[0]}: {listed[wrong[0]]} and {seen[wrong[0]]}): the samples count"
                )
        if self.multi_label:
            rows = np.stack([*seen.values()]) if self.labels is None and seen else self.labels
            notes += several_notes(rows)
        self.notes = tuple(note for note in notes if note)
        origin = type(dataset) if spec is None else load_object(spec, "function")
        name = getattr(origin, "__qualname__", type(origin).__qualname__)
        self.fingerprint = digest_of(
            f"{name} {len(dataset)} {labelled}".encode(),
            _source(origin) if self._spec is None else code_digest(self._spec).encode(),
            b"" if listed is None else listed.tobytes(),
            b"" if changes else contents.encode(),
        )

    def __len__(self) -> int:
        return len(self._dataset)

    def __getstate__(self) -> dict[str, Any]:
        # A user's file is imported under a name that another process does not know.
        return {**self.__dict__, **({} if self._spec is None else {"_dataset": None})}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._spec is not None:
            found = call_object(self._spec, "function")
            self._dataset = map_style(found, self._spec, self._limit)

    def id(self, index: int) -> str:
        """The sample's number."""
        return str(index)

    def load(self, index: int) -> Loaded:
        """The image of a sample."""
        return self.sample(index)[0]

    def sample(self, index: int) -> tuple[Loaded, Label]:
        """The image of a sample and its label, -1 where unlabelled."""
        id, item = self.id(index), self._item(index)
        if not self.labelled:
            # Items may be images alone, also where the first is not.
            layout = self._layout
            if layout.image is None:
                layout = replace(layout, image=0)
            if not isinstance(item, Mapping | list | tuple):
                layout = replace(layout, image=None)
            return layout.image_of(item, id), UNLABELLED
        label = self._layout.label_of(item, id)
        return self._layout.image_of(item, id), self._label(id, label)

    def describe(self) -> dict[str, Any]:
        """Kind, where it comes from, numbers and fingerprint."""
        found = described_as("dataset", self)
        options = {"limit": self._limit, "multi_label": self._said}
        options["texts"] = self._holds_texts or None
        if options := {key: value for key, value in options.items() if value is not None}:
            found["options"] = options
        return {**found, "source": self._spec or type(self._dataset).__qualname__}

    def align(self, place: NDArray[np.int64], names: tuple[str, ...]) -> None:
        """Count the classes as the network does."""
        super().align(place, names)
        self._place = place if self._place is None else place[self._place]
        self._n_aligned = len(names)

    def _know(self, class_names: tuple[str, ...] | None) -> None:
        self.class_names = class_names
        self._numbers = {name: i for i, name in enumerate(class_names or ())}
        self._n_classes = None if class_names is None else len(class_names)

    def _item(self, index: int) -> Any:
        try:
            return self._dataset[index]
        except Exception as error:  # the data set is the user's: it may raise anything
            raise ImageFaultError(
                self.id(index), f"cannot be loaded ({one_line(error)})"
            ) from error

    def _is_multi_label(self, listed: NDArray[Any] | None, said: bool | None) -> bool:
        """By what the user says, the list of labels, or the labels of the first samples."""
        if listed is not None:
            return listed.ndim == 2
        if said is not None:
            return said
        for index in np.unique(np.linspace(0, len(self) - 1, LOOKED_AT).astype(int)).tolist():
            with suppress(ImageFaultError):
                label = self._layout.label_of(self._item(index), self.id(index))
                if multi_hot_labels([label], 1, None, None) is not None:
                    return True
        return False

    def _width(self, listed: NDArray[Any] | None) -> int:
        """How many classes a row has."""
        if self.class_names is not None:
            return len(self.class_names)
        if listed is not None:
            return int(listed.shape[1])
        for index in range(min(len(self), LOOKED_AT)):
            with suppress(ImageFaultError):
                label = self._layout.label_of(self._item(index), self.id(index))
                if isinstance(label, np.ndarray | Tensor) and len(label) > 1:
                    return len(label)
        raise InputError(
            "the samples list their classes, and nothing says how many there are: give the data "
            "set an attribute `classes`, the names in the order of their numbers, or vectors of 0 "
            "and 1 as labels"
        )

    def _row(self, id: str, label: Any) -> NDArray[np.bool_]:
        assert self._n_classes is not None
        try:
            row = row_of(label, self._numbers, self._n_classes)
        except SeveralLabelsError as error:
            raise ImageFaultError(id, f"has the labels {error}") from None
        return row if self._place is None else placed(row, self._place, self._n_aligned)

    def _label(self, id: str, label: Any) -> Label:
        if self.multi_label:
            return self._row(id, label)
        try:
            number = label_of(label, self._numbers or None)
        except NoLabelError as error:
            raise ImageFaultError(id, f"has the label {error}") from None
        end = self._n_classes
        if number < 0 or (end is not None and number >= end):
            raise ImageFaultError(id, f"has the label {number}, expected {label_range(end)}")
        return number if self._place is None else int(self._place[number])

    def _look(self) -> tuple[dict[int, Label], str, bool]:
        """Labels of some samples, a hash of these, and whether they change from look to look."""
        labels: dict[int, Label] = {}
        spread = np.unique(np.linspace(0, len(self) - 1, LOOKED_AT).astype(int)).tolist()
        seen: list[bytes] = []
        for index in spread:
            seen.append(self._contents(index))
            with suppress(ImageFaultError):
                labels[index] = self.sample(index)[1]
        changes = any(
            self._contents(i) != seen[at] for at, i in enumerate(spread[:LOOKED_AT_TWICE])
        )
        return labels if self.labelled else {}, digest_of(*seen), changes

    def _contents(self, index: int) -> bytes:
        """A hash of an image and its label; the same for all that cannot be loaded."""
        try:
            image, label = self.sample(index)
            if isinstance(image, Image.Image):
                return digest_of(image.tobytes(), f"{image.size} {label}".encode()).encode()
            if isinstance(image, str):
                return digest_of(
                    image.encode("utf-8", "surrogatepass"), f"{label}".encode()
                ).encode()
            values = image.cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
            return digest_of(values.tobytes(), f"{values.shape} {label}".encode()).encode()
        except Exception:  # a fault of this one image, found and said where it is read
            return b"fault"


def map_style(found: Any, what: str, limit: int | None = None) -> Any:
    """The map-style data set in what a user gives: itself, or what a DataLoader reads.

    Args:
        found: what the user gives.
        what: it is called in errors.
        limit: how many samples to take of one that streams them.

    Raises:
        InputError: it is none.
    """
    if isinstance(found, DataLoader):
        if found.collate_fn is not default_collate:
            raise InputError(
                f"{what} is a DataLoader with a collate_fn of its own: give its data set"
            )
        found = found.dataset
    if isinstance(found, Mapping) and found and all(map(_is_data_set, found.values())):
        if len(found) == 1:
            return map_style(next(iter(found.values())), what, limit)
        names = list(map(str, found))
        raise InputError(
            f"{what} is {len(found)} data sets ({some(names)}): give one of them, such as "
            f"{type(found).__name__}[{names[0]!r}]"
        )
    if is_stream(found):
        return first_of(found, limit, what)
    if not _is_map_style(found):
        raise InputError(
            f"{what} is {_shown(found)}, expected a map-style data set: with a length, and "
            "items (image, label)"
        )
    if len(found) == 0:
        raise InputError(f"{what} is empty: it has no samples")
    return found


def _is_data_set(found: Any) -> bool:
    return _is_map_style(found) or is_stream(found)


def _is_map_style(found: Any) -> bool:
    is_like_it = hasattr(found, "__getitem__") and hasattr(found, "__len__")
    return is_like_it and not isinstance(found, str | bytes | Mapping | type)


def _shown(found: Any) -> str:
    """A value, or only its type where it says no more than its address."""
    shown = reprlib.repr(found)
    return f"a {type(found).__qualname__}" if " at 0x" in shown or "..." in shown else shown


def _layout(dataset: Any, labelled: bool, texts: bool) -> ItemLayout:
    """How items are read, by the first that can be loaded and that has an image and a label."""
    why: NoLabelError | None = None
    for index in range(min(len(dataset), LOOKED_AT)):
        try:
            return layout_of(dataset[index], labelled, texts)
        except NoLabelError as error:
            why = why or error
        except Exception:  # one sample; said where it is read
            continue
    if why is not None:
        raise InputError(f"sample 0 of the data set {why}")
    return ItemLayout(texts=texts)


def _class_names(dataset: Any, label: int | str | None) -> tuple[str, ...] | None:
    """Names of the classes in the order of their numbers, as torchvision or Hugging Face say."""
    if isinstance(dataset, Subset):
        return _class_names(dataset.dataset, label)
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple | np.ndarray):
        features = getattr(dataset, "features", None)
        feature = features.get(label) if isinstance(features, Mapping) else None
        inner = getattr(feature, "feature", feature)  # of a list of classes
        names = getattr(inner, "names", None)
    if not isinstance(names, list | tuple | np.ndarray) or not len(names):
        return None
    return tuple(map(first_name, names))


def _listed(
    dataset: Any,
    label: int | str | None,
    class_names: Sequence[str] | None,
    multi_label: bool | None,
) -> tuple[NDArray[Any] | None, tuple[str, ...] | None]:
    """All labels, where the data set lists them without loading its images, and their names."""
    labels = _list_of_labels(dataset, label)
    names = None if class_names is None else tuple(class_names)
    if labels is None:
        return None, names
    try:
        return labels_of(labels, len(dataset), names, multi_label)
    except InputError:
        # Raw labels that the samples turn into others; these are what counts.
        return None, names


def _list_of_labels(dataset: Any, label: int | str | None) -> Any:
    if isinstance(dataset, Subset):
        whole = _list_of_labels(dataset.dataset, label)
        return None if whole is None else [whole[i] for i in dataset.indices]
    if getattr(dataset, "target_transform", None) is not None:
        return None
    if isinstance(label, str) and label in getattr(dataset, "column_names", ()):
        return list(dataset[label])
    for name in ("targets", "labels"):
        labels = getattr(dataset, name, None)
        if isinstance(labels, list | tuple | np.ndarray | Tensor) and len(labels) == len(dataset):
            return labels
    return None


def _source(origin: Any) -> bytes:
    """The source file that defines a function or a class; nothing where there is none."""
    try:
        file = inspect.getsourcefile(origin)
    except TypeError:  # built in, or an instance
        return b""
    return Path(file).read_bytes() if file and Path(file).is_file() else b""

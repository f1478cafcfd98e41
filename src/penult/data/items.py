"""Items of a data set: which part is the image, which the label."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from penult.data.image import (
    ImageFaultError,
    Loaded,
    extension,
    formats,
    open_image,
    printable,
    read_file,
)
from penult.data.labels import NoLabelError, label_of

# The keys of dicts, the likeliest first.
IMAGE_KEYS: tuple[str, ...] = ("image", "img", "images", "pixel_values", "picture", "photo", "jpg")
IMAGE_KEYS += ("jpeg", "png", "webp", "input", "inputs", "x", "data")
TEXT_KEYS: tuple[str, ...] = ("text", "sentence", "review", "content", "document", "comment")
TEXT_KEYS += ("tweet", "message", "body", "utterance", "headline", "question", "description")
TEXT_KEYS += ("abstract", "review_text", "reviewtext", "review_body", "comment_text", "query")
TEXT_KEYS += ("string", "sms", "post", "paragraph", "passage", "article", "txt", "title")
LABEL_KEYS: tuple[str, ...] = ("label", "labels", "target", "targets", "class", "cls", "y")
LABEL_KEYS += ("category", "fine_label", "class_id", "label_id", "class_name", "label_name")

Key = int | str


@dataclass(frozen=True)
class ItemLayout:
    """Where an item keeps its image and its label.

    Attributes:
        image: position or key; None where the item is the image.
        label: likewise; None where there is none.
        note: what to say of it; None where it is as usual.
        texts: whether there is a text in place of the image.
    """

    image: Key | None = 0
    label: Key | None = 1
    note: str | None = None
    texts: bool = False

    def image_of(self, item: Any, id: str) -> Loaded:
        """The image of an item, or its text.

        Raises:
            ImageFaultError: the item is of another kind, or a file that cannot be opened.
        """
        part = item if self.image is None else self._part(item, self.image, id)
        if self.texts:
            return "" if part is None else part
        return opened(part, id)

    def label_of(self, item: Any, id: str) -> Any:
        """The label of an item, as it is there."""
        return self._part(item, 1 if self.label is None else self.label, id)

    def _part(self, item: Any, key: Key, id: str) -> Any:
        try:
            return item[key]
        except (TypeError, KeyError, IndexError, AttributeError):
            names = "(image, label)" if isinstance(key, int) else f"a dict with {key!r}"
            raise ImageFaultError(id, f"is {_kind(item)}, expected {names}") from None


class Columns:
    """Samples given column by column; each is a dict.

    Args:
        columns: lists of one length, by name.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self._columns = columns
        self.column_names = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            return self._columns[key]
        return {name: column[key] for name, column in self._columns.items()}


def layout_of(item: Any, labelled: bool, texts: bool = False) -> ItemLayout:
    """How to take image and label, or text and label, out of items like this one.

    Raises:
        NoLabelError: no part can be the image, or none the label; says what there is.
    """
    kind, holds = ("text", is_text) if texts else ("image", is_image)
    if isinstance(item, Mapping):
        return _layout_of_dict(item, labelled, texts)
    if not isinstance(item, list | tuple):
        return ItemLayout(0 if labelled else None, texts=texts)
    image = next((i for i, part in enumerate(item) if holds(part)), None)
    if image is None and texts:
        raise NoLabelError(f"is {_kind(item)} without a text, and the network takes texts")
    if image is None or not labelled:
        return ItemLayout(image or 0, 1, texts=texts)
    label = next((i for i in range(image + 1, len(item)) if _is_label(item[i])), None)
    if label is None:
        label = next((i for i in range(image) if _is_label(item[i])), image + 1)
    if (image, label) == (0, 1) and len(item) == 2:
        return ItemLayout(texts=texts)
    return ItemLayout(
        image,
        label,
        f"samples have {len(item)} parts: part {image + 1} is taken as the {kind} and part "
        f"{label + 1} as the label",
        texts,
    )


def opened(value: Any, id: str) -> Loaded:
    """An image from what stands for it: itself, a file's path, bytes, or a dict with these.

    Raises:
        ImageFaultError: a file that cannot be opened.
    """
    if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
        value = value.get("bytes") or value.get("path")
    if value is None:
        raise ImageFaultError(id, "has no image")
    if isinstance(value, bytes):
        return open_image(value, id)
    if isinstance(value, str | os.PathLike):
        try:
            return open_image(read_file(value), str(value))
        except ImageFaultError as error:
            raise ImageFaultError(id, f"({printable(str(value))}) {error.reason}") from None
        except OSError as error:
            name, why = printable(str(value)), error.strerror
            raise ImageFaultError(id, f"({name}) cannot be read ({why})") from None
    return value  # type: ignore[no-any-return]  # checked where it is decoded


def is_image(value: Any) -> bool:
    """Whether a part of an item can be an image."""
    if isinstance(value, Mapping):
        return bool({"bytes", "path"} & value.keys())
    if isinstance(value, np.ndarray | Tensor):
        return value.ndim >= 2
    return isinstance(value, Image.Image | bytes)


def is_path(value: Any) -> bool:
    """Whether a part of an item is the path of an image, by its ending."""
    return isinstance(value, str | os.PathLike) and extension(os.fspath(value)) in formats()


def is_text(value: Any) -> bool:
    """Whether a part of an item can be a text."""
    return isinstance(value, str)


def _layout_of_dict(item: Mapping[str, Any], labelled: bool, texts: bool) -> ItemLayout:
    kind, keys, holds = ("text", TEXT_KEYS, is_text) if texts else ("image", IMAGE_KEYS, is_image)
    lower = {str(key).lower(): key for key in item}
    image = _key(lower, keys)
    if image is None:
        likely = [key for key, value in item.items() if holds(value)]
        if not likely and not texts:
            likely = [key for key, value in item.items() if is_path(value)]
        image = likely[0] if len(likely) == 1 else None
    if image is None:
        raise NoLabelError(
            f"is {_kind(item)}, expected a key such as {kind!r} in it, as the network takes {kind}s"
        )
    if not labelled:
        return ItemLayout(image, None, texts=texts)
    label = _key(lower, LABEL_KEYS)
    if label is None:
        likely = [key for key, value in item.items() if key != image and _is_label(value)]
        label = likely[0] if len(likely) == 1 else None
    if label is None:
        raise NoLabelError(f"is {_kind(item)}, expected one key such as 'label' in it")
    usual = (str(image).lower(), str(label).lower()) == (kind, "label")
    note = None if usual else f"samples are dicts: {image!r} is the {kind} and {label!r} the label"
    return ItemLayout(image, label, note, texts)


def _key(lower: Mapping[str, Any], wanted: tuple[str, ...]) -> Any:
    return next((lower[key] for key in wanted if key in lower), None)


def _is_label(value: Any) -> bool:
    if isinstance(value, str):
        return True
    if isinstance(value, list | tuple) and len(value) == 1:
        return _is_label(value[0])
    try:
        label_of(value)
    except NoLabelError:
        return False
    return not isinstance(value, Image.Image | Mapping)


def _kind(item: Any) -> str:
    name = type(item).__name__
    article = "an" if name[0].lower() in "aeiou" else "a"
    if isinstance(item, Mapping):
        return f"{article} {name} with {', '.join(map(repr, list(item)[:6]))}"
    if isinstance(item, list | tuple):
        return f"{article} {name} of {len(item)} parts"
    return f"{article} {name}"

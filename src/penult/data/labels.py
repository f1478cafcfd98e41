"""Labels of whatever shape: numbers, words, vectors with a single 1."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from penult.data.listing import nfc
from penult.data.multi_hot import multi_hot_labels
from penult.data.words import (
    BOOLEANS,
    SampleLabelError,
    are_booleans,
    meant_as_numbers,
    number_of_word,
)
from penult.errors import InputError


class NoLabelError(ValueError):
    """What should be a label is none; the message says what was found and what was expected."""


def label_of(value: Any, numbers: Mapping[str, int] | None = None) -> int:
    """The class that one label means.

    Args:
        value: an integer of any library, a whole number as float, a tensor or an array of one
            number, a vector with a single 1 and zeros, a word (a name, or a whole number), or a
            list of one of these.
        numbers: the classes' numbers by their names, for words; None where unknown.

    Raises:
        NoLabelError: it is none of these.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        return label_of(value[0], numbers)
    if isinstance(value, str):
        return _of_word(str(value), numbers)
    try:
        return operator.index(value)
    except TypeError:
        pass
    array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if array.dtype.kind not in "biuf":
        raise NoLabelError(f"{reprlib.repr(value)}, expected an integer")
    if array.size == 1:
        number = array.reshape(()).item()
        if not float(number).is_integer():
            raise NoLabelError(f"{number!s:.40}, expected an integer")
        return int(number)
    flat = array.squeeze()
    ones = np.flatnonzero(flat == 1) if flat.ndim == 1 else np.empty(0, int)
    if len(ones) == 1 and not flat.astype(bool).sum() > 1:
        return int(ones[0])
    found = f"a vector of {flat.size} numbers with {len(ones)} ones" if flat.ndim == 1 else None
    raise NoLabelError(
        f"{found or f'an array of shape {array.shape}'}, expected one class: an integer, or a "
        "vector with a single 1"
    )


def labels_of(
    labels: Any,
    n_samples: int,
    class_names: Sequence[str] | None,
    multi_label: bool | None = False,
) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """All labels as (n_samples,) int64, and the classes' names where they are known.

    Where samples have several classes, labels are (n_samples, n_classes) bool.

    Args:
        labels: (n_samples,) or (n_samples, 1) integers or words, or (n_samples, n_classes) with a
            single 1 in each row; a list, an array, a tensor or a column of a table.
        n_samples: how many there must be.
        class_names: the classes' names; where None, words are the names, in alphabetical order,
            unless all are whole numbers: those are numbers. Of "true" and "false" in any letters,
            "False" is class 0 and "True" class 1.
        multi_label: whether a sample may have several classes, see `multi_hot_labels`; None to tell
            by the labels.

    Raises:
        InputError: wrong shape, or a label that is none; names the sample.
    """
    several = multi_hot_labels(labels, n_samples, class_names, multi_label)
    if several is not None:
        return several
    words = _alone(labels) if not isinstance(labels, Tensor) else []
    if words and all(isinstance(word, str) for word in words):
        if class_names is None and are_booleans(words):
            class_names, words = BOOLEANS, [word.strip().capitalize() for word in words]
        if class_names is None:
            words = meant_as_numbers(words)
        if isinstance(words[0], int):
            return checked_labels(words, n_samples, None), None
        names = tuple(class_names or sorted({nfc(word) for word in words}))
        numbers = {name: i for i, name in enumerate(names)}
        found = []
        for index, word in enumerate(words):
            try:
                found.append(_of_word(str(word), numbers))
            except NoLabelError as error:
                raise SampleLabelError(index, str(error)) from None
        return checked_labels(found, n_samples, len(names)), names
    n_classes = None if class_names is None else len(class_names)
    known = None if class_names is None else tuple(class_names)
    return checked_labels(labels, n_samples, n_classes), known


def checked_labels(labels: Any, n_samples: int, n_classes: int | None) -> NDArray[np.int64]:
    """Labels as (n_samples,) int64.

    Raises:
        InputError: wrong shape, or a label that is no integer in [0, n_classes); names the sample.
    """
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else labels
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.empty(0, dtype=object)
    if array.ndim == 2 and len(array) == n_samples and array.dtype.kind in "biuf":
        array = _of_rows(array)
    if array.shape != (n_samples,):
        raise InputError(f"labels have the shape {array.shape}, expected ({n_samples},)")
    if array.dtype.kind not in "iub":
        rows = values if isinstance(values, list | tuple) else array.tolist()
        array = np.array([_whole(index, label) for index, label in enumerate(rows)])
    bad = array < 0 if n_classes is None else (array < 0) | (array >= n_classes)
    if bad.any():
        index = int(np.argmax(bad))
        from_one = n_classes is not None and array.min() == 1 and array.max() == n_classes
        hint = ": if they count from 1, subtract 1" if from_one else ""
        expected = label_range(n_classes)
        raise SampleLabelError(index, f"{array[index]}, expected {expected}{hint}")
    return array.astype(np.int64)


def label_range(n_classes: int | None) -> str:
    """What a label may be, for messages."""
    return "at least 0" if n_classes is None else f"an integer in [0, {n_classes})"


def _alone(labels: Any) -> list[Any]:
    """The labels, each taken out of a list that holds nothing else."""
    values = list(labels)
    if all(isinstance(value, list | tuple | np.ndarray) and len(value) == 1 for value in values):
        return [value[0] for value in values]
    return values


def _of_word(word: str, numbers: Mapping[str, int] | None) -> int:
    found = number_of_word(word, numbers)
    if found is not None:
        return found
    if numbers is None:
        raise NoLabelError(
            f"{word!r}, a word: give the data set an attribute `classes`, the names in the order "
            "of their numbers"
        )
    known = ", ".join([*numbers][:3])
    raise NoLabelError(f"{word!r}, expected one of {known} and so on")


def _of_rows(array: NDArray[Any]) -> NDArray[Any]:
    """A column of labels, or rows with a single 1, as one number for each row."""
    if array.shape[1] == 1:
        return array[:, 0]
    ones = (array == 1).sum(1)
    bad = (ones != 1) | ((array != 0).sum(1) != 1)
    if bad.any():
        index = int(np.argmax(bad))
        raise SampleLabelError(
            index,
            f"a row with {ones[index]} ones, expected one class: an integer, or a single 1 and "
            "zeros",
        )
    numbers: NDArray[Any] = array.argmax(1)
    return numbers


def _whole(index: int, label: Any) -> int:
    try:
        number = label_of(label)
    except NoLabelError as error:
        raise SampleLabelError(index, str(error)) from None
    if number.bit_length() > 63:
        raise SampleLabelError(index, f"{number!s:.40}, expected an integer")
    return number

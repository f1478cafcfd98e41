"""Several labels per sample: multi-hot rows, lists of classes, or text such as "cat;dog"."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from penult.data.listing import nfc
from penult.data.words import SampleLabelError, meant_as_numbers, number_of_word
from penult.errors import InputError
from penult.text import some

MultiHot = NDArray[np.bool_]
SEPARATORS = (";", "|")
# These are parts of many names, and separate classes only where the user says that there are many.
MORE_SEPARATORS = (",", " ")
OPTIONS = "--multi-label or --single-label settles it"


class SeveralLabelsError(ValueError):
    """What should be a sample's classes is none; the message says what was found."""


def multi_hot_labels(
    labels: Any, n_samples: int, class_names: Sequence[str] | None, multi_label: bool | None
) -> tuple[MultiHot, tuple[str, ...] | None] | None:
    """Labels as (n_samples, n_classes) bool, and the classes' names where they are known.

    Args:
        labels: (n_samples, n_classes) of 0 and 1; or for each sample a list of classes, numbers or
            words; or single classes, where `multi_label` is True.
        n_samples: how many there must be.
        class_names: the classes' names, or None.
        multi_label: whether a sample may have several; None to tell by the labels.

    Returns:
        None where every sample has exactly one class and nothing else was asked for.

    Raises:
        InputError: rows or lists that are none; names the sample.
    """
    if multi_label is False:
        return None
    rows = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else labels
    matrix = _matrix(rows)
    if matrix is not None and matrix.shape[1] < 2:  # a column of single labels
        if not multi_label:
            return None
        rows, matrix = [[value] for value in matrix[:, 0].astype(int).tolist()], None
    names = None if class_names is None else tuple(class_names)
    if matrix is None:
        values = list(rows)
        several = any(is_several(value) for value in values)
        if not (several or multi_label):
            return None
        found, names = _of_lists(values, names)
    else:
        found = matrix == 1
    if not multi_label and bool((found.sum(1) == 1).all()):
        return None
    if len(found) != n_samples:
        raise InputError(f"labels have the shape {found.shape}, expected {n_samples} rows")
    if names is not None and found.shape[1] != len(names):
        raise InputError(
            f"multi-hot labels have {found.shape[1]} columns, expected {len(names)}, one for each "
            f"class: {some(list(names), 5)}"
        )
    if found.shape[1] < 2:
        raise InputError("multi-label data need at least two classes, found one")
    return found, names


def row_of(label: Any, numbers: Mapping[str, int], n_classes: int) -> MultiHot:
    """One sample's classes as (n_classes,) bool.

    Args:
        label: a vector of 0 and 1, a list of classes, a single class, or text such as "a;b".
        numbers: the classes' numbers by their names.
        n_classes: how many there are.

    Raises:
        SeveralLabelsError: it is none of these.
    """
    vector = _matrix([label] if is_several(label) else None)
    if vector is not None and vector.shape[1] == n_classes:
        row: MultiHot = vector[0] == 1
        return row
    row = np.zeros(n_classes, dtype=bool)
    for value in classes_in(label):
        number = _number(value, numbers)
        if not 0 <= number < n_classes:
            raise SeveralLabelsError(f"{number}, expected classes in [0, {n_classes})")
        row[number] = True
    return row


def is_several(label: Any) -> bool:
    """Whether one sample's label is a list, a set or a vector of several numbers."""
    if isinstance(label, list | tuple | set | frozenset):
        return True
    return isinstance(label, np.ndarray | Tensor) and label.ndim == 1 and len(label) != 1


def classes_in(label: Any) -> list[Any]:
    """The classes that one sample's label names."""
    if isinstance(label, str):
        return [part.strip() for part in split(label) if part.strip()]
    if is_several(label):
        return list(label.tolist() if isinstance(label, np.ndarray | Tensor) else label)
    return [label]


def split(text: str, separators: Sequence[str] = SEPARATORS) -> list[str]:
    """Text at the first of the separators that is in it."""
    mark = next((mark for mark in separators if mark in text), None)
    return [text] if mark is None else text.split(mark)


def separator_of(texts: Sequence[str], multi_label: bool | None) -> str | None:
    """What separates several classes in the cells of a column of text; None for nothing.

    A semicolon or a bar does where parts come again in other cells; where the user says that there
    are several classes, so does whatever is there, a comma or a space too.
    """
    distinct = set(texts)
    for mark in SEPARATORS if multi_label is None else (*SEPARATORS, *MORE_SEPARATORS):
        if multi_label is False or not any(mark in text for text in distinct):
            continue
        parts = Counter(part for text in distinct for part in set(text.split(mark)) if part.strip())
        if multi_label or (parts and max(parts.values()) > 1):
            return mark
    return None


def several_notes(labels: NDArray[Any] | None) -> tuple[str, ...]:
    """What to say of labels that are multi-label; nothing of others."""
    if labels is None or labels.ndim != 2:
        return ()
    n = labels.sum(1)
    none = f", {int((n == 0).sum()):,} samples without any" if (n == 0).any() else ""
    return (
        f"the data are multi-label: {labels.shape[1]:,} classes, {n.mean():.2f} of them for each "
        f"sample on average{none}; {OPTIONS}",
    )


def zero_or_one(value: Any) -> bool | None:
    """What a cell of a 0/1 column says; None where it says neither."""
    text = str(value).strip().lower()
    said = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
    return said.get(text)


def _matrix(rows: Any) -> NDArray[Any] | None:
    """Rows of 0 and 1 as an array; None where they are something else."""
    if isinstance(rows, str) or rows is None:
        return None
    try:
        if not isinstance(rows, np.ndarray):
            rows = [row.tolist() if isinstance(row, Tensor) else row for row in rows]
        array = np.asarray(rows)
        if array.dtype == object and len(array) and is_several(array[0]):
            array = np.stack([np.asarray(row) for row in array])
    except (ValueError, TypeError):  # of different lengths
        return None
    if array.ndim != 2 or array.dtype.kind not in "biuf" or not array.size:
        return None
    return array if bool(((array == 0) | (array == 1)).all()) else None


def _of_lists(
    values: list[Any], names: tuple[str, ...] | None
) -> tuple[MultiHot, tuple[str, ...] | None]:
    """Lists of classes as rows; words are the names, in alphabetical order.

    Where all words are whole numbers, they are numbers.
    """
    lists = [classes_in(value) for value in values]
    every = [one for found in lists for one in found]
    if not every:
        raise InputError("no sample has a label: expected classes of at least one")
    in_words = names is None and all(isinstance(one, str) for one in every)
    if in_words and isinstance(meant_as_numbers(every)[0], str):
        names = tuple(sorted({nfc(one) for one in every}))
    numbers = {name: i for i, name in enumerate(names or ())}
    indices = []
    for i, found in enumerate(lists):
        try:
            indices.append([_number(one, numbers) for one in found])
        except SeveralLabelsError as error:
            raise SampleLabelError(i, str(error), several=True) from None
    n_classes = len(names) if names else 1 + max(max(row, default=0) for row in indices)
    made = np.zeros((len(values), n_classes), dtype=bool)
    for i, row in enumerate(indices):
        bad = [number for number in row if not 0 <= number < n_classes]
        if bad:
            problem = f"{bad[0]}, expected classes in [0, {n_classes})"
            raise SampleLabelError(i, problem, several=True)
        made[i, row] = True
    return made, names


def _number(value: Any, numbers: Mapping[str, int]) -> int:
    if isinstance(value, str):
        number = number_of_word(value, numbers)
        if number is not None:
            return number
        known = f", expected one of {some([*numbers], 3)}" if numbers else ", expected numbers"
        raise SeveralLabelsError(f"{value!r:.60}{known}")
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        raise SeveralLabelsError(f"{value!r:.60}, expected classes as numbers or words") from None

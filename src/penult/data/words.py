"""Labels written as text: the names of classes, or whole numbers such as "3", "3.0" or " 7 "."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from penult.data.listing import nfc
from penult.errors import InputError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?")


def meant_as_numbers(labels: list[Any]) -> list[Any]:
    """Labels that were written as text: numbers where all are whole numbers, else as they are.

    Raises:
        InputError: they are numbers, and one is no class.
    """
    texts = [str(label).strip() for label in labels]
    if all(_WHOLE.fullmatch(text) for text in texts):
        return [int(text.partition(".")[0]) for text in texts]
    if all(_NUMBER.fullmatch(text) for text in texts):
        odd = next(i for i, text in enumerate(texts) if not _WHOLE.fullmatch(text))
        raise InputError(
            f"the label of sample {odd} is {texts[odd]:.40}, expected a class: a whole number "
            "from 0, or a word"
        )
    return texts if any(isinstance(label, str) for label in labels) else labels


def number_of_word(word: str, numbers: Mapping[str, int] | None) -> int | None:
    """The class that a word means: the one of this name, or of this number; None for none.

    Args:
        word: a label.
        numbers: the classes' numbers by their names; None where the classes have no names. Where
            names are whole numbers themselves, a word means a name only.
    """
    names = numbers or {}
    if (name := nfc(word)) in names:
        return names[name]
    text = word.strip()
    if not _WHOLE.fullmatch(text) or any(_WHOLE.fullmatch(name) for name in names):
        return None
    return int(text.partition(".")[0])

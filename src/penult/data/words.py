"""Labels written as text: the names of classes, or whole numbers such as "3", "3.0" or " 7 "."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from penult.data.listing import nfc
from penult.errors import InputError

BOOLEANS = ("False", "True")  # the classes 0 and 1

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?")


class SampleLabelError(InputError):
    """The label of one sample is none that can be used.

    Args:
        index: of the sample.
        problem: what follows "is", or "have" where a sample has several labels.
        several: whether it has.
    """

    def __init__(self, index: int, problem: str, several: bool = False) -> None:
        self.index = index
        self._said = f"s of {{}} have {problem}" if several else f" of {{}} is {problem}"
        super().__init__(self.of(f"sample {index}"))

    def of(self, sample: str) -> str:
        """What is wrong, with another name for the sample."""
        before, _, after = self._said.partition("{}")
        return f"the label{before}{sample}{after}"


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
        raise SampleLabelError(
            odd, f"{texts[odd]:.40}, expected a class: a whole number from 0, or a word"
        )
    return texts if any(isinstance(label, str) for label in labels) else labels


def is_whole(text: str) -> bool:
    """Whether a text is a whole number, such as "3" or "3.0"."""
    return _WHOLE.fullmatch(text.strip()) is not None


def are_booleans(words: Iterable[str]) -> bool:
    """Whether all words are true or false, in whatever letters."""
    return {word.strip().casefold() for word in words} <= {"false", "true"}


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

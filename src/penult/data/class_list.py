"""Class names as users have them: lists, the dicts that libraries write, numbered lines."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from penult.data.listing import nfc
from penult.errors import InputError
from penult.text import is_number, one_line

NATURAL = "natural"
MAX_BYTES = 1 << 24
LONGEST = 1000  # characters of a line: of a name with all of its synonyms

_WORDNET_ID = re.compile(r"n\d{8}")
_NUMBERED = re.compile(r"(\d+)(?:\s*[:=,;\t]\s*|\s+|\s*$)(.*)")
_NUMBER_LAST = re.compile(r"(.*?)(?:\s*[:=,;\t]\s*|\s+)(\d+)")
_BY_WORDNET_ID = re.compile(r"(n\d{8})[\s,:;]+(.+)")


@dataclass(frozen=True)
class ClassList:
    """What a user says of the classes of a network.

    Attributes:
        names: in the order of the logits; None where only `renamed` or `natural` is said. With
            `renamed` too, only if there are as many as the network has classes.
        keys: other names of the same classes, such as folders: from the name to its number.
        renamed: what people are to read instead of a folder's name.
        natural: take folders as a person counts (1, 2, 10), not in alphabetical order.
    """

    names: tuple[str, ...] | None = None
    keys: Mapping[str, int] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    natural: bool = False


def class_list(given: str | Path) -> ClassList:
    """Class names from a file, or the word `natural`.

    Args:
        given: a text file with one name per line, also numbered ("0 cat", "cat,0"), after WordNet
            ids ("n02123045 tabby, tabby cat": the first name counts) or in two columns (folder, tab
            and name); a JSON list of names or of their synonyms; a JSON dict from number to name or
            to [folder, name], from name to number, or from folder to name; a Hugging Face
            `config.json`. `natural` takes the folders themselves, in the order 1, 2, 10.

    Raises:
        InputError: it cannot be read, or is none of these.
    """
    if str(given) == NATURAL:
        return ClassList(natural=True)
    text = nfc(_text(Path(given)))
    if text.lstrip()[:1] in ("[", "{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"--class-names {given} is no JSON: {error}") from error
        return _of_list(given, found) if isinstance(found, list) else _of_dict(given, found)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if long := next((line for line in lines if len(line) > LONGEST), None):
        raise InputError(
            f"--class-names {given}: a line has {len(long):,} characters ({one_line(long, 40)}): "
            f"expected names of at most {LONGEST:,}"
        )
    return _of_lines(lines)


def first_name(name: Any) -> str:
    """The first of a class's synonyms, whether a tuple of them or a text with commas in a tuple."""
    if isinstance(name, list | tuple) and name:
        return first_name(name[0])
    return nfc(str(name))


def is_wordnet_id(name: str) -> bool:
    """Whether a name is like n01440764, as ImageNet calls its classes."""
    return _WORDNET_ID.fullmatch(name) is not None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"--class-names {path} cannot be read: {error.strerror}; expected a file, or natural"
        ) from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"--class-names {path} has more than {MAX_BYTES >> 20} MiB")
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        raise InputError(
            f"--class-names {path} is no text in UTF-8 or UTF-16: save it as UTF-8"
        ) from None


def _of_list(given: str | Path, found: list[Any]) -> ClassList:
    synonyms = [_synonyms(item) for item in found]
    if not all(synonyms):
        shown = next(item for item, names in zip(found, synonyms, strict=True) if not names)
        raise InputError(
            f"--class-names {given}: expected a JSON list of names, found {str(shown)[:60]!r} in it"
        )
    return _named(synonyms)


def _of_dict(given: str | Path, found: Mapping[str, Any]) -> ClassList:
    for inner in ("id2label", "class_to_idx", "label2id", "names", "classes"):
        if isinstance(inner_found := found.get(inner), dict):
            return _of_dict(given, inner_found)
        if isinstance(inner_found, list):
            return _of_list(given, inner_found)
    numbers = _numbers(list(found))
    if numbers is not None and all(map(_synonyms, found.values())):
        in_order = sorted(zip(numbers, found.values(), strict=True), key=lambda pair: pair[0])
        return _named([_synonyms(value) for _, value in in_order])
    numbers = _numbers(list(found.values()))
    if numbers is not None:
        return _named([[name] for _, name in sorted(zip(numbers, found, strict=True))])
    if found and all(isinstance(name, str) and name for name in found.values()):
        return ClassList(renamed=dict(found))
    raise InputError(
        f"--class-names {given}: expected a JSON dict from number to name, from name to number "
        "(0 to n - 1), or from folder to name"
    )


def _of_lines(lines: list[str]) -> ClassList:
    if pairs := _all_match(_BY_WORDNET_ID, lines):
        firsts = [first_name(second.split(",")) for _, second in pairs]
        ids = [key for key, _ in pairs]
        listed = _named([[name, key] for name, key in zip(firsts, ids, strict=True)])
        # In the order of the logits if there are as many; else only what folders are called.
        return replace(listed, renamed=dict(zip(ids, firsts, strict=True)))
    for pattern, number, name in ((_NUMBERED, 0, 1), (_NUMBER_LAST, 1, 0)):
        pairs = _all_match(pattern, lines)
        numbers = _numbers([pair[number] for pair in pairs]) if pairs else None
        # In "1 cent, 2 cent" the number is part of the name.
        names = {pair[name] for pair in pairs}
        if numbers is not None and "" not in names and 2 * len(names) > len(pairs):
            return _named([[pair[name]] for _, pair in sorted(zip(numbers, pairs, strict=True))])
    if lines and all(line.count("\t") == 1 for line in lines):
        return ClassList(renamed=dict(map(_two, (line.split("\t") for line in lines))))
    return ClassList(names=tuple(lines))


def _two(parts: Sequence[str]) -> tuple[str, str]:
    return parts[0].strip(), parts[1].strip()


def _all_match(pattern: re.Pattern[str], lines: list[str]) -> list[tuple[str, str]]:
    found = [pattern.fullmatch(line) for line in lines]
    return [(m[1], m[2].strip()) for m in found if m] if all(found) else []


def _numbers(values: list[Any]) -> list[int] | None:
    """Numbers from 0, or from 1, without a gap; None where they are not."""
    numbers = []
    for value in values:
        if isinstance(value, bool) or not (isinstance(value, int) or is_number(str(value))):
            return None
        numbers.append(int(value))
    first = min(numbers, default=0)
    complete = sorted(numbers) == list(range(first, first + len(numbers)))
    return numbers if numbers and complete and first in (0, 1) else None


def _synonyms(item: Any) -> list[str]:
    """All names of one class, the one to show first; none where these are no names."""
    if isinstance(item, str):
        return [item] if item else []
    if isinstance(item, dict):
        return _synonyms(item.get("name"))
    if isinstance(item, list) and item and all(isinstance(name, str) and name for name in item):
        # Keras' index says ["n01440764", "tench"]: the name is for people, the id for folders.
        return sorted(item, key=is_wordnet_id)
    return []


def _named(synonyms: Sequence[list[str]]) -> ClassList:
    keys = {name: i for i, names in enumerate(synonyms) for name in names[1:]}
    return ClassList(tuple(names[0] for names in synonyms), keys)

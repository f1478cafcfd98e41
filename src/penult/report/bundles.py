"""Bundles: a report's data as blocks of JSON that the page parses only when a view needs them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

CHUNKS = {"class": 25, "feature": 50, "image": 100, "mistake": 50}
APART = ("groups", "suspects", "edits", "mends")

_ESCAPED = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_UNSAFE = re.compile("[<>&\u2028\u2029]")
_CONTROLS = {i: 0x2400 + i for i in range(32)} | {0x7F: 0x2421}
_SURROGATES = re.compile("[\ud800-\udfff]")


def legible(value: Any) -> Any:
    """The same value, in whose strings control characters can be seen and nothing fails to encode.

    Control characters become their pictures (␛), halves of surrogate pairs, as undecodable file
    names have them, become the replacement character. Containers are copied, keys stay.
    """
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value.translate(_CONTROLS))
    if isinstance(value, Mapping):
        return {key: legible(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [legible(item) for item in value]
    return value


def rounded(value: Any) -> Any:
    """The same value with six significant digits of every number: a page shows three or four."""
    kind = type(value)  # of a million values: isinstance would take most of the time
    if kind is float:
        return float(f"{value:.6g}")
    if kind is list or kind is tuple:
        return [rounded(item) for item in value]
    if kind is dict:
        return {key: rounded(item) for key, item in value.items()}
    if kind is int or kind is str or kind is bool or value is None:
        return value
    if isinstance(value, float):
        return rounded(float(value))
    return rounded(dict(value)) if isinstance(value, Mapping) else value


def embedded(value: Any) -> Markup:
    r"""JSON that may stand inside a `<script>`: `<`, `>`, `&`, U+2028 and U+2029 as `\uXXXX`.

    Raises:
        ValueError: a NaN or an infinity, which JSON cannot hold.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(_UNSAFE.sub(lambda found: _ESCAPED[found[0]], text))


def bundles(
    document: Mapping[str, Any],
    class_details: Sequence[Mapping[str, Any]],
    feature_details: Sequence[Mapping[str, Any]],
    images: Sequence[Mapping[str, Any]],
    chunks: Mapping[str, int] = CHUNKS,
) -> Iterator[tuple[str, Markup]]:
    """Each bundle's element id and its JSON: the document first, then the details in chunks.

    The reasons of the mistakes, by far their largest part, go into chunks of their own; so do
    groups, suspects and edits, of which the document keeps only how many there are.
    """
    mistakes = document["mistakes"]
    rows = [{key: row[key] for key in row if key != "reasons"} for row in mistakes["rows"]]
    light = {**document, "mistakes": {**mistakes, "rows": rows}, "chunks": dict(chunks)}
    apart = {name: light.pop(name) for name in APART if light.get(name)}
    yield "data-document", embedded({**light, "has": list(apart)})
    for name, part in apart.items():
        yield f"data-{name}", embedded(rounded(part))
    reasons = [row["reasons"] for row in mistakes["rows"] if "reasons" in row]
    parts: dict[str, Sequence[Any]] = {
        "class": rounded(class_details),
        "feature": rounded(feature_details),
        "mistake": reasons,
        "image": images,
    }
    yield from chunked(parts, chunks)


def chunked(
    parts: Mapping[str, Sequence[Any]], chunks: Mapping[str, int] = CHUNKS
) -> Iterator[tuple[str, Markup]]:
    """Lists of details in bundles of so many as `chunks` says, for `item` of the scripts."""
    for name, items in parts.items():
        size = chunks[name]
        for number, start in enumerate(range(0, len(items), size)):
            yield f"data-{name}-{number}", embedded(items[start : start + size])

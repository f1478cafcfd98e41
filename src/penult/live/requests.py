"""What a request asks for, read and bounded before anything is done."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from penult.errors import InputError
from penult.live.samples import SampleQuery
from penult.text import one_line

MOST_JSON = 4 << 20
MOST_UPLOAD = 16 << 20
MOST_LISTED = 200
LONGEST_TEXT = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}")
# What Windows takes for devices, whatever follows a dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]) *([.].*)?", re.IGNORECASE)
_ROUTE = re.compile(r"[a-z]{1,20}(/[^\s]{0,200})?")


class TooLargeError(InputError):
    """A request whose body is larger than it may be."""


async def body_of(request: Request, most: int) -> bytes:
    """The body of a request.

    Raises:
        TooLargeError: it has more than so many bytes; no more than these are read.
    """
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > most:
        raise TooLargeError(f"expected at most {most >> 20} MiB, found {int(said) >> 20} MiB")
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > most:
            raise TooLargeError(f"expected at most {most >> 20} MiB, found more")
    return bytes(found)


async def json_of(request: Request) -> dict[str, Any]:
    """The object that a request sends.

    Raises:
        InputError: no JSON object.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise InputError("expected application/json")
    return object_of(await body_of(request, MOST_JSON), "the request")


def object_of(raw: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object, whose texts can be written.

    Args:
        raw: as it was sent.
        what: it is, for messages.

    Raises:
        InputError: it is none; halves of surrogate pairs, which no file and no answer can hold.
    """
    try:
        found = json.loads(raw)
        if isinstance(found, dict):
            json.dumps(found, ensure_ascii=False).encode()
            return found
    except UnicodeEncodeError:
        raise InputError(f"{what} holds text that is no Unicode") from None
    except (ValueError, RecursionError):
        pass
    raise InputError(f"{what}: expected a JSON object, found something else")


def whole(found: Mapping[str, Any], name: str, default: int | None = None) -> int | None:
    """A whole number from 0 up among what was sent; the default where it is not there.

    Raises:
        InputError: something else.
    """
    value = found.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
        return int(value)
    if type(value) is int and 0 <= value < 1 << 53:
        return value
    raise InputError(f"{name}: expected a whole number, found {value!r:.40}")


def numbers(found: Mapping[str, Any], name: str) -> list[int]:
    """Whole numbers with commas between them.

    Raises:
        InputError: something else; there are none.
    """
    parts = str(found.get(name, "")).split(",")
    made = [whole({name: part}, name) for part in parts]
    if None in made:
        raise InputError(f"{name}: expected whole numbers with commas between them")
    return [n for n in made if n is not None]


def text(found: Mapping[str, Any], name: str, default: str = "") -> str:
    """A text among what was sent, not very long.

    Raises:
        InputError: something else.
    """
    value = found.get(name, default)
    if value is None:
        return default
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise InputError(f"{name}: expected a text of at most {LONGEST_TEXT} characters")
    return value


def name_of(found: Mapping[str, Any]) -> str:
    """The name under which something is saved: letters, digits, spaces, dots, dashes only.

    Raises:
        InputError: another one, which could be a path.
    """
    value = text(found, "name").strip()
    if not _NAME.fullmatch(value) or value.endswith("."):
        raise InputError(
            "name: expected letters, digits, spaces, dots, dashes, a letter or digit first and no "
            f"dot at the end, found {one_line(value, 60)!r}"
        )
    # The logits of a run lie beside its edits.
    if _DEVICE.fullmatch(value) or value.lower() == "logits":
        raise InputError(f"name: {value!r} has a meaning of its own: choose another one")
    return value


def route_of(found: Mapping[str, Any]) -> str:
    """The view that a report opens with; "" for the usual one."""
    value = text(found, "start")
    return value if _ROUTE.fullmatch(value) else ""


def query_of(asked: Mapping[str, str]) -> SampleQuery:
    """Which samples are asked for.

    Raises:
        InputError: no number where one belongs.
    """
    group = text(asked, "group")
    order = text(asked, "order", "high")
    if order not in ("high", "low"):
        raise InputError(f"order: expected high or low, found {order!r:.40}")
    return SampleQuery(
        label=whole(asked, "class"),
        predicted=whole(asked, "predicted"),
        group=(group, text(asked, "value")) if group else None,
        feature=whole(asked, "feature"),
        rising=order == "low",
        text=text(asked, "query").strip(),
        wrong=text(asked, "wrong") == "1",
        offset=whole(asked, "offset", 0) or 0,
        limit=min(whole(asked, "limit", 60) or 60, MOST_LISTED),
    )

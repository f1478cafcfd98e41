"""Deaths: what Ray says of workers and machines that are lost, in words that help."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# What Ray's messages hold, and what is said of it. Of others nobody has to know: what died is begun
# anew, and where it dies again and again the command ends and says so.
SAID = (
    ("a worker died or was killed", "a worker on {} died: another takes over what it was at"),
    (
        "due to memory pressure",
        "memory ran short on {}, and Ray ended a worker there: another takes over what it was at",
    ),
    (
        "low on memory",
        "memory ran short on {}, and Ray ended a worker there: another takes over what it was at",
    ),
    (
        "has been marked dead",
        "the machine {} is lost: the others take over what its workers were at",
    ),
)
_WHERE = re.compile(r"(?:IP|IP address|address): ([\w.:-]*[\w])")


@contextmanager
def put_into_words(say: Callable[[str], None] | None) -> Iterator[None]:
    """Put Ray's messages on what died into words while Ray runs; without `say` they are dropped.

    Ray prints them on standard output and has no setting that keeps it from it. Should a version
    of Ray print them by another function, they come as Ray has them.
    """
    worker: Any = importlib.import_module("ray._private.worker")
    printed = getattr(worker, "print_to_stdstream", None)

    def heard(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
        said = in_words("\n".join(map(str, data.get("lines", ()))))
        if said is not None and say is not None:
            say(said)

    if printed is not None:
        worker.print_to_stdstream = heard
    try:
        yield
    finally:
        if printed is not None:
            worker.print_to_stdstream = printed


def in_words(message: str) -> str | None:
    """What a message of Ray means to whoever waits; None where it means nothing to them."""
    line = " ".join(message.split())
    where = _WHERE.search(line)
    for part, words in SAID:
        if part in line.lower():
            return words.format(where[1] if where else "one of the machines")
    return None

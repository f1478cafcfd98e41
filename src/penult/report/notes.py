"""Notes: what a reader of a report must know before its numbers, and how its data were taken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from penult.data.image import noted_lines
from penult.heads.judge import Judge


def reader_warnings(summary: dict[str, Any], judge: dict[str, Any]) -> list[str]:
    """What a reader must know before the numbers, as sentences.

    That labels are the network's own stands on every view, see `page.html.j2`.
    """
    warning = replace(Judge.read(judge), own_labels=False).warning
    return as_sentences([*summary.get("warnings", []), *([warning] if warning else [])])


def data_notes(summary: dict[str, Any]) -> list[str]:
    """How the samples were taken, and what was left out of them or changed, as sentences."""
    found = []
    for part, faults in summary["faults"].items():
        if faults["n_faults"]:
            path, reason = faults["named"][0]
            left_out = f"{faults['n_faults']:,} samples of {part} left out, the first: {path}: "
            found.append(left_out + reason)
        found += noted_lines(faults["converted"], part)
        found += [f"{part}: {note}" for note in summary["notes"].get(part, [])]
    return as_sentences(found)


def as_sentences(found: Iterable[str]) -> list[str]:
    """Texts as sentences: with a capital first and a full stop last."""
    return [f"{text[:1].upper()}{text[1:].rstrip('.')}." for text in found]

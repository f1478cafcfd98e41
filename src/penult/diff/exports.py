"""Exports: how large and how fast both sides are, where `penult export` has measured it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from penult.diff.side import Side
from penult.errors import InputError
from penult.storage import read_json

FORMAT = "penult-export/1"
Found = dict[str, dict[str, Any]]


def exports(old: Side, new: Side) -> list[dict[str, Any]]:
    """Sizes and times of both sides in the same format, runtime and batch size.

    They are those of the folders in RUN/exported; an export also holds what the network was before,
    so that any export of a run tells of its dense head.

    Returns:
        For each format that both were measured in: bytes of each side, and seconds of one batch by
        runtime and batch size, medians with 95 % intervals. Seconds of two exports were not
        measured side by side unless both sides are of one export.
    """
    first, second = _measured(old), _measured(new)
    rows = []
    for name in first:
        if name not in second:
            continue
        before, after = first[name], second[name]
        seconds = [
            {"runtime": runtime, "batch_size": size, "old": times, "new": after["seconds"][key]}
            for key, times in before["seconds"].items()
            if key in after["seconds"]
            for runtime, size in [key]
        ]
        rows.append(
            {
                "format": name,
                "bytes": {"old": before["bytes"], "new": after["bytes"]},
                "seconds": seconds,
                "together": before["folder"] == after["folder"],
            }
        )
    return rows


def _measured(side: Side) -> Found:
    """By format what was measured of a side; of several exports of one format the last."""
    found: Found = {}
    wanted = side.head.fingerprint().split()[-1]
    for file in sorted((side.run.folder / "exported").glob("*/export.json")):
        with suppress(InputError, KeyError, TypeError, AttributeError):  # of another version
            document = read_json(file, FORMAT)
            own = str(document["head"]["fingerprint"]).split()[-1] == wanted
            which = "before" if side.dense else "after"
            if not (own or side.dense):
                continue
            seconds = {
                (runtime, size): {key: times[which][key] for key in ("median", "interval")}
                for runtime, sizes in document["cost"]["seconds"].items()
                for size, times in sizes.items()
                if which in times
            }
            found[document["what"]["format"]] = {
                "folder": str(file.parent),
                "bytes": int(document["cost"][which]["bytes"]),
                "seconds": seconds,
            }
    return found

"""RunList: what the runs of a folder are, and which of them are broken or copies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penult.errors import InputError
from penult.live.shown_run import signature_of
from penult.runs.run import Run
from penult.text import one_line, percent

LONGEST = 60  # characters of a name of a network or of data


@dataclass(frozen=True)
class ListedRun:
    """A run as the list shows it.

    Attributes:
        what: network, data, sizes and accuracy; empty where it cannot be read.
        broken: why it cannot be read; empty of a good one.
        content: the same of copies.
    """

    what: str
    broken: str
    content: str

    @classmethod
    def of(cls, folder: Path) -> ListedRun:
        """What a folder holds."""
        try:
            run = Run.open(folder)
            if not run.is_whole():
                raise InputError("files of the run are gone: make it again")
            return cls(_what(run), "", _content(run))
        except InputError as error:
            return cls("", str(error), "")
        except (KeyError, TypeError, ValueError, AttributeError, OSError):
            return cls("", "run.json or summary.json is damaged: make the run again", "")


class RunList:
    """Says of runs what they are; what has not changed on disk is not read again."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[str, ListedRun]] = {}

    def rows(self, folders: Mapping[str, Path]) -> list[tuple[str, str, bool]]:
        """Name, what is to be said, and whether it can be read, of each run."""
        first: dict[str, str] = {}
        rows = []
        for name, folder in folders.items():
            found = self._read(folder)
            said = found.broken or found.what
            if found.content:
                same = first.setdefault(found.content, name)
                said += "" if same == name else f"; the same as {one_line(same, LONGEST)}"
            rows.append((name, said, not found.broken))
        return rows

    def _read(self, folder: Path) -> ListedRun:
        signature = signature_of(folder)
        if self._known.get(folder, ("",))[0] != signature:
            self._known[folder] = signature, ListedRun.of(folder)
        return self._known[folder][1]


def _what(run: Run) -> str:
    summary = run.summary()
    network = str(summary["network"] or "a classifier").replace("\\", "/").rpartition("/")[2]
    data = run.about["data"]
    source = str(data.get("path") or data["kind"]).rpartition("/")[2]
    n = summary["n_eval_samples"] or summary["n_samples"]
    accuracy = percent(summary["dense"]["accuracy"])
    return (
        f"{one_line(network, LONGEST)} on {one_line(source, LONGEST)}, "
        f"{len(summary['class_names']):,} classes; {accuracy} % of {n:,} samples right"
    )


def _content(run: Run) -> str:
    found = hashlib.blake2b(digest_size=16)
    for path in (run.folder / "run.json", run.summary_file):
        found.update(path.read_bytes())
    return found.hexdigest()

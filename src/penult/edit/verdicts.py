"""Verdicts: what people say of a class and a feature that they have looked at."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penult.edit.edit import Edit
from penult.edit.setting import feature_index
from penult.errors import InputError
from penult.runs.run import Run
from penult.storage import not_written
from penult.text import class_index, described, one_line

FORMAT = "penult-verdicts/1"
MOST_BYTES = 1 << 26
KINDS = ("core", "shortcut", "label noise", "unsure")


@dataclass(frozen=True)
class Verdict:
    """What somebody says a feature is to a class.

    Attributes:
        feature: its number.
        of: the class's name; None for all classes.
        kind: one of `KINDS`.
        note: why, for people.
        who: who said it.
        when: time in UTC, ISO 8601.
    """

    feature: int
    of: str | None
    kind: str
    note: str = ""
    who: str = ""
    when: str = ""

    @property
    def pair(self) -> str:
        """As commands take it: `57:cat`, or `57`."""
        return str(self.feature) if self.of is None else f"{self.feature}:{self.of}"

    def document(self) -> dict[str, Any]:
        """One line of the file."""
        return {
            "format": FORMAT,
            "feature": self.feature,
            "class": self.of,
            "verdict": self.kind,
            "who": self.who,
            "when": self.when,
            "note": self.note,
        }

    def edit(self) -> Edit:
        """The feature switched off for the class, with the verdict as the reason."""
        said = f"{self.kind}, says {self.who}" if self.who else self.kind
        reason = f"{said}: {self.note}" if self.note else said
        return Edit("off", feature=self.feature, of=self.of, reason=reason)


def verdicts_file(run: Run) -> Path:
    """Where the verdicts of a run lie."""
    return run.folder / "verdicts.jsonl"


def add_verdict(
    run: Run, feature: int, of: str | int | None, kind: str, note: str = "", who: str | None = None
) -> Verdict:
    """Append a verdict to a run; earlier ones stay, the last one counts.

    Args:
        run: a finished run.
        feature: its number.
        of: class by name or number; None for all classes.
        kind: core, shortcut, label noise or unsure.
        note: why.
        who: by default the name of the user who runs this.

    Raises:
        InputError: no such feature, class or kind; another process writes the verdicts.
    """
    summary = run.summary()
    if kind not in KINDS:
        raise InputError(f"expected a verdict of {', '.join(KINDS)}, found {kind!r}")
    feature_index(feature, int(summary["n_features"]))
    names = summary["class_names"]
    name = None if of is None else names[class_index(of, names)]
    when = datetime.now(UTC).isoformat(timespec="seconds")
    made = Verdict(feature, name, kind, one_line(note), _user() if who is None else who, when)
    path = verdicts_file(run)
    line = json.dumps(made.document(), ensure_ascii=False) + "\n"
    try:
        with run.writing():
            torn = path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size
            size = path.stat().st_size if path.is_file() else None
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(f"\n{line}" if torn else line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                _undo(path, size)
                raise
    except OSError as error:
        raise not_written(path, error) from error
    return made


def _undo(path: Path, size: int | None) -> None:
    """Take away what was appended to a file of that size, None for a new one."""
    with suppress(OSError):
        if size is None:
            path.unlink(missing_ok=True)
        else:
            os.truncate(path, size)


def verdicts_of(run: Run) -> list[Verdict]:
    """All verdicts of a run in the order in which they were given.

    Raises:
        InputError: a line that is no verdict.
    """
    path = verdicts_file(run)
    if not path.is_file():
        return []
    found = []
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} is larger than {MOST_BYTES >> 20} MiB: no file of verdicts")
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {described(error)}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_verdict(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: line {number} is no verdict: {described(error)}") from error
    return found


def _verdict(row: Any) -> Verdict:
    """A line of the file.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it is none.
    """
    of, texts = row["class"], [row.get(name, "") for name in ("note", "who", "when")]
    if type(row["feature"]) is not int or not (of is None or isinstance(of, str)):
        raise ValueError("expected a feature's number and a class's name")
    if row["verdict"] not in KINDS or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"expected one of {', '.join(KINDS)}, and texts")
    return Verdict(row["feature"], of, row["verdict"], *texts)


def latest(run: Run) -> dict[tuple[int, str | None], Verdict]:
    """The verdict that counts for each feature and class: the last one."""
    return {(verdict.feature, verdict.of): verdict for verdict in verdicts_of(run)}


def verdict_on(
    verdicts: Mapping[tuple[int, str | None], Verdict], feature: int | None, of: str | None
) -> Verdict | None:
    """What was said of a feature of a class; what was said of it for all classes comes after.

    Args:
        verdicts: from `latest`.
        feature: its number; None for no single feature, of which nothing is said.
        of: the class; None for all of them.
    """
    if feature is None:
        return None
    return verdicts.get((feature, of)) or verdicts.get((feature, None))


def shortcut_edits(run: Run) -> list[Edit]:
    """Everything that is called a shortcut, switched off.

    Raises:
        InputError: nothing is.
    """
    found = [verdict.edit() for verdict in latest(run).values() if verdict.kind == "shortcut"]
    if not found:
        raise InputError(
            f"{run.folder} has no verdict `shortcut`: give one with penult verdict "
            f"{run.folder} FEATURE:CLASS shortcut"
        )
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""

"""What edits and mends a run keeps in its folder `edited`, as far as they fit it."""

from __future__ import annotations

from typing import Any

from penult.edit import desk, mend_table
from penult.errors import InputError
from penult.runs.groups import evaluated_part
from penult.runs.run import Run
from penult.storage import read_json

Kept = list[tuple[str, dict[str, Any]]]


def kept_effects(run: Run) -> tuple[Kept, list[str]]:
    """Effects of the edited heads that `penult edit --out RUN/edited/NAME` left, by their names.

    Returns:
        Names and documents; and why others are left out, as they are of other samples or classes.
    """
    found, said = _documents(run, "effect.json", desk.FORMAT)
    names = set(run.summary()["class_names"])
    n, part = run.evaluation().n_samples, evaluated_part(run)
    kept = []
    for name, document in found:
        same = document["part"] == part and document["n_samples"] == n
        if same and {row["class"] for row in document["classes"]} <= names:
            kept.append((name, document))
        else:
            said.append(
                f"the edit {name} is left out: it was measured on other samples than the run holds "
                "now; repeat it with penult edit"
            )
    return kept, said


def kept_mends(run: Run) -> tuple[Kept, list[str]]:
    """Tables of `penult mend --out RUN/edited/NAME`, by their names; and why some are left out."""
    return _documents(run, "mends.json", mend_table.FORMAT)


def _documents(run: Run, file: str, format: str) -> tuple[Kept, list[str]]:
    found: Kept = []
    said = []
    for path in sorted((run.folder / "edited").glob(f"*/{file}")):
        try:
            found.append((path.parent.name, read_json(path, format)))
        except InputError as error:
            said.append(f"the edit {path.parent.name} is left out: {error}")
    return found, said

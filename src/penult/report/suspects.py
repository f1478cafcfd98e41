"""SuspectViews of a report: features that look like shortcuts, with the images to judge them by."""

from __future__ import annotations

from typing import Any

from penult.edit.shortcuts import shortcuts_document
from penult.edit.verdicts import latest
from penult.errors import InputError
from penult.explain.survey import ShownSample
from penult.explain.toplists import Entry
from penult.report.album import Album, PageImages
from penult.report.findings import Findings

KEPT = ("n_pairs", "rate", "n_suspects", "gaps", "part", "n_samples", "n_compared", "notes")
PAGES = 12  # suspects that have images
SIDES = ("high", "low", "elsewhere")


class SuspectViews:
    """What `penult shortcuts` found in a run, made ready for the page.

    Args:
        found: the other findings of the report.
        pages: how many suspects have images; all of them where None.

    Attributes:
        rows: all pairs that were listed, worst first.
        warnings: why what the run keeps is not shown.
    """

    def __init__(self, found: Findings, pages: int | None = PAGES) -> None:
        self._found = found
        self._pages = pages
        self._document: dict[str, Any] | None = None
        self.warnings: list[str] = []
        try:
            document = shortcuts_document(found.run)
        except InputError as error:
            self.warnings.append(f"the suspects are left out: {error}")
            document = None
        if document is not None:
            same = document["part"] == found.eval_part
            same &= document["n_samples"] == found.verdicts.n_samples
            if same and document["head"].split()[-1] == found.dense.fingerprint().split()[-1]:
                self._document = document
            else:
                self.warnings.append(
                    "the suspects are left out: they were found for another head or other samples; "
                    "look for them anew with penult shortcuts RUN"
                )
        self.rows: list[dict[str, Any]] = self._document["pairs"] if self._document else []

    def enter(self, album: Album) -> dict[tuple[str, int], ShownSample]:
        """Put the images of the first suspects into an album.

        Returns:
            The samples that they show.
        """
        part = self._found.eval_part
        samples = {}
        for place, row in enumerate(self.rows[: self._pages]):
            for side in SIDES:
                album.lists["suspect", place, side] = (
                    part,
                    row["feature"],
                    [Entry(shown["row"], shown["value"]) for shown in row["samples"][side]],
                )
                for shown in row["samples"][side]:
                    n = shown["row"]
                    calls = self._found.verdicts
                    samples[part, n] = ShownSample(n, shown["id"], *calls.calls(n))
        return samples

    def document(self, shots: PageImages) -> dict[str, Any] | None:
        """As the page holds it; None where nothing was looked for."""
        if self._document is None:
            return None
        names = self._found.summary["class_names"]
        rows = []
        for place, row in enumerate(self.rows):
            kept = {key: row[key] for key in row if key != "samples"}
            kept["class"] = names.index(row["class"])
            if self._pages is None or place < self._pages:
                kept["shots"] = {side: shots.of(("suspect", place, side)) for side in SIDES}
            rows.append(kept)
        pooled = self._document["pooled"]
        if pooled is not None:
            features = [
                {**row, "classes": [names.index(name) for name in row["classes"]]}
                for row in pooled["features"]
            ]
            pooled = {**pooled, "features": features}
        return {**{key: self._document[key] for key in KEPT}, "pairs": rows, "pooled": pooled}


def verdicts_part(found: Findings) -> list[dict[str, Any]]:
    """The verdicts that count, with classes by number; None for all classes."""
    names = found.summary["class_names"]
    return [
        {
            "feature": said.feature,
            "class": None if said.of is None else names.index(said.of),
            "verdict": said.kind,
            "note": said.note,
            "who": said.who,
            "when": said.when,
        }
        for said in latest(found.run).values()
        if said.of is None or said.of in names
    ]

"""Edits of a report: what edited heads do, before and after, with the images that flip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penult.edit.effects import said
from penult.edit.kept import kept_effects, kept_mends
from penult.explain.survey import ShownSample
from penult.report.album import Album, PageImages
from penult.report.findings import Findings

FLIPS = {"right_to_wrong": 18, "wrong_to_right": 18, "wrong_to_wrong": 6}
CLASSES = 200  # rows of the table by class, those that change most first


class EditViews:
    """The edits that lie in a run, made ready for the page.

    Args:
        found: the other findings of the report.
        given: effects that are to be shown besides, by name.

    Attributes:
        effects: (name, document) of each edited head.
        warnings: edits that are not shown, and why.
    """

    def __init__(self, found: Findings, given: Mapping[str, dict[str, Any]] | None = None) -> None:
        self._found = found
        kept, self.warnings = kept_effects(found.run)
        self.effects = [*(given or {}).items(), *kept]
        self.mends, left_out = kept_mends(found.run)
        self.warnings += left_out
        names = found.summary["class_names"]
        self._place = {name: c for c, name in enumerate(names)}
        if found.dense.multi_label:
            opposites = {said(name, False): c for c, name in enumerate(names, len(names))}
            self._place = opposites | self._place

    def enter(self, album: Album) -> None:
        """Put the images that flip into an album, as large as mistakes are shown."""
        part, calls = self._found.eval_part, self._found.verdicts
        for _, effect in self.effects:
            for flip in self._flips(effect):
                n = flip["row"]
                sample = ShownSample(n, flip["id"], *calls.calls(n))
                mapped = {one["feature"]: one["value"] for one in flip["features"][:1]}
                album.mistakes.append(((part, n), sample, mapped))

    def document(self, shots: PageImages) -> list[dict[str, Any]]:
        """As the page holds them."""
        return [self.view(name, effect, shots) for name, effect in self.effects]

    def mends_document(self) -> list[dict[str, Any]]:
        """The tables of mends that lie in the run."""
        return [{"name": name, **table} for name, table in self.mends]

    def _flips(self, effect: dict[str, Any]) -> list[dict[str, Any]]:
        found = effect["flips"]
        return [flip for kind, n in FLIPS.items() for flip in found[kind]["samples"][:n]]

    def view(
        self, name: str, effect: dict[str, Any], shots: PageImages, most: int | None = CLASSES
    ) -> dict[str, Any]:
        """One of them, or another edit's, under a name; at most so many classes, all where None."""
        place = self._place
        classes = sorted(effect["classes"], key=lambda row: (-abs(row["loss"]), -row["lost"]))
        changed = [row for row in classes if row["lost"] or row["won"]]
        known = ("head", "n_bounds", "part", "n_samples", "edits", "notes", "overall")
        return {
            "name": name,
            **{key: effect[key] for key in known},
            "classes": [{**row, "class": place[row["class"]]} for row in changed[:most]],
            "n_changed": len(changed),
            "n_classes": len(classes),
            "groups": [
                {
                    "name": attribute,
                    "before": self._means(found["before"]),
                    "after": self._means(found["after"]),
                    "groups": [{**row, "class": place[row["class"]]} for row in found["groups"]],
                }
                for attribute, found in effect["groups"].items()
            ],
            "flips": {
                kind: {
                    "n_samples": effect["flips"][kind]["n_samples"],
                    "samples": [
                        self._flip(flip, shots) for flip in effect["flips"][kind]["samples"][:n]
                    ],
                }
                for kind, n in FLIPS.items()
            },
        }

    def _means(self, found: dict[str, Any]) -> dict[str, Any]:
        worst = found["worst"]
        if worst is not None:
            worst = {**worst, "class": self._place[worst["class"]]}
        return {**found, "worst": worst}

    def _flip(self, flip: dict[str, Any], shots: PageImages) -> dict[str, Any]:
        key = (self._found.eval_part, flip["row"])
        first = flip["features"][:1]
        return {
            "image": shots.number(key),
            "map": shots.map(key, first[0]["feature"]) if first else None,
            "id": flip["id"],
            **{side: self._place[flip[side]] for side in ("label", "before", "after")},
            "features": flip["features"],
        }

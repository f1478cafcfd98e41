"""Page: a comparison as one HTML file, in the frame and the style of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from markupsafe import Markup

from penult.diff.compare import TwoSides, sentences
from penult.diff.pictures import SideShots, evidence_of, flips_of
from penult.diff.text import (
    evidence_said,
    feature_name,
    how_changed,
    in_words,
    matched_said,
    rested_on,
    ruled,
    samples_said,
    sizes,
    suspects_said,
)
from penult.report.bundles import CHUNKS, chunked, embedded, legible, rounded
from penult.report.page import fill
from penult.runs.reopen import holds_texts
from penult.text import unbroken

FORMAT = "penult-diff-page/1"
FIRST = 8  # classes whose evidence changed, on the summary
SIDES = ("old", "new")
_HERE = Path(__file__).parent


def diff_html(compared: TwoSides, sides: Mapping[str, SideShots]) -> str:
    """The page of a comparison: one file that needs nothing but itself.

    Args:
        compared: both sides; its document may hold the rules' outcome under "gate".
        sides: their pictures, see `take_shots`.
    """
    document, images = page_document(compared, sides)
    document = legible(document)
    return fill(
        "diff.html.j2",
        [_HERE / "views.js"],
        _HERE,
        d=document,
        start="summary",
        bundles=_bundles(document, images),
    )


def page_document(
    compared: TwoSides, sides: Mapping[str, SideShots]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """All that the page shows, and the pictures that it names by number."""
    found = compared.document
    first = {"old": 0, "new": len(sides["old"].images)}
    place = {name: c for c, name in enumerate(compared.shared.class_names)}
    notes = {sides[which].note: None for which in SIDES}
    cases = [_case(row, sides, first, place) for row in flips_of(found)]
    changed = [_evidence(row, sides, first, place) for row in evidence_of(found)]
    images = [
        {**image, "grid": sides[which].shots.grid}
        for which in SIDES
        for image in sides[which].images
    ]
    document = {
        **_summary(compared, place),
        "cases": cases,
        "evidence": changed,
        "pictures": {
            "maps": any(side.mapped for side in sides.values()),
            "note": " ".join(note for note in notes if note),
            "grid": None,
            "signed": any(side.shots.signed for side in sides.values()),
            "n_images": len(images),
            "n_missing": sum(side.n_missing for side in sides.values()),
        },
    }
    return document, images


def _summary(compared: TwoSides, place: Mapping[str, int]) -> dict[str, Any]:
    """What the page says without pictures."""
    found = compared.document
    return {
        "format": FORMAT,
        "version": version("penult"),
        "title": " → ".join(_short(*(found[which]["name"] for which in SIDES))),
        "about": {
            "samples": "texts" if holds_texts(compared.new.run) else "images",
            "multi_label": False,
            "own_labels": compared.new.run.own_labels,
        },
        "conclusion": [*map(unbroken, sentences(found))],
        "gate": [
            {**row, "said": ruled(row).removeprefix(f"{row['verdict']}: ")}
            for row in found.get("gate", [])
        ],
        **{key: found[key] for key in ("old", "new", "overall", "probabilities")},
        "sizes": [(name[:1].upper() + name[1:], *ends) for name, *ends in sizes(found)],
        "n_samples": found["samples"]["n_samples"],
        "classes": _classes(found, place),
        "by_class": _ranked(found["classes"], "class", place),
        "groups": [
            {"name": name, "values": _ranked(rows, "value", {})}
            for name, rows in found["groups"].items()
        ],
        "flips": {
            kind: {key: found["flips"][kind][key] for key in ("n_samples", "rate", "interval")}
            for kind in ("negative", "positive")
        },
        "first_evidence": [
            {
                "class": place[row["class"]],
                "changed": row["changed"],
                "features": [*map(_worded, row["features"][:3])],
                "rested": [*map(in_words, rested_on(row))],
            }
            for row in found["evidence"]["classes"][:FIRST]
        ],
        "evidence_said": unbroken(evidence_said(found).removeprefix("Evidence: ")),
        "n_evidence": found["evidence"]["n_classes"],
        "comparable": found["evidence"]["comparable"],
        "returned": found["evidence"]["returned"],
        "suspects": _named(found["suspects"]),
        "notes": [
            *suspects_said(found["suspects"])[0 if found["suspects"]["new"] is None else 1 :],
            matched_said(found["matched"]),
            *samples_said(found["samples"]),
        ],
        "features": [],  # the frame looks for some of a report
        "mistakes": {"rows": []},
    }


def _short(*names: str) -> list[str]:
    """Sides without the folders that their runs lie in, where that tells them from each other."""
    found = []
    for name in names:
        run, at, what = name.partition("@")
        found.append(f"{run.rstrip('/').rsplit('/', 1)[-1]}{at}{what}")
    return found if len(set(found)) == len(names) else list(names)


def _ranked(
    rows: Sequence[Mapping[str, Any]], key: str, place: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Rows of a table that changed, those of the surest and largest losses first."""
    return [
        {
            **row,
            "name": row[key],
            "c": place.get(row[key]),
            "moved": bool(row["lost"] or row["won"]),
        }
        for row in rows
    ]


def _classes(found: Mapping[str, Any], place: Mapping[str, int]) -> list[dict[str, Any]]:
    """All classes in the order of their numbers; without numbers where no sample has one."""
    counted = {row["class"]: row for row in found["classes"]}
    changed = found["evidence"]["changed"]
    rows = []
    for name in place:
        row = counted.get(name, {})
        rows.append(
            {
                **{key: value for key, value in row.items() if key != "class"},
                "name": name.strip() or "(no name)",  # or there would be nothing to click on
                "n_samples": row.get("n_samples", 0),
                "n_eval": row.get("n_samples", 0),
                "changed": changed.get(name),
            }
        )
    return rows


def _case(
    row: Mapping[str, Any],
    sides: Mapping[str, SideShots],
    first: Mapping[str, int],
    place: Mapping[str, int],
) -> dict[str, Any]:
    """One flip with its pictures and the maps of the features behind it."""
    images = {}
    for which in SIDES:
        number = sides[which].shots.number((sides[which].part, row[f"row_{which}"]))
        images[which] = None if number is None else first[which] + number
    return {
        "id": row["id"],
        "kind": "negative" if row["before"] == row["label"] else "positive",
        **{key: place[row[key]] for key in ("label", "before", "after")},
        "images": images,
        "features": [
            {
                **{key: feature[key] for key in (*SIDES, "before", "after")},
                "name": feature_name(feature),
                "maps": {
                    which: None
                    if feature[which] is None
                    else sides[which].shots.map(
                        (sides[which].part, row[f"row_{which}"]), feature[which]
                    )
                    for which in SIDES
                },
            }
            for feature in row["features"]
        ],
    }


def _evidence(
    row: Mapping[str, Any],
    sides: Mapping[str, SideShots],
    first: Mapping[str, int],
    place: Mapping[str, int],
) -> dict[str, Any]:
    """A class whose evidence changed, with the images that its features look at."""
    c = place[row["class"]]
    features = []
    for feature in row["features"]:
        shots = {
            which: None
            if feature[which] is None
            else {
                where: [
                    [first[which] + shot[0], *shot[1:]]
                    for shot in sides[which].shots.of((c, feature[which], where))
                ]
                for where in ("own", "others")
            }
            for which in SIDES
        }
        features.append({**_worded(feature), "shots": shots})
    return {"class": c, "changed": row["changed"], "features": features}


def _named(found: Mapping[str, Any]) -> dict[str, Any]:
    """Suspects with the names of their features."""
    rows = {
        key: None
        if found[key] is None
        else [{**row, "name": feature_name(row)} for row in found[key]]
        for key in ("new", "gone")
    }
    return {**found, **rows}


def _worded(feature: Mapping[str, Any]) -> dict[str, Any]:
    return {**feature, "name": feature_name(feature), "said": how_changed(feature)}


def _bundles(
    document: Mapping[str, Any], images: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Markup]]:
    light = dict(document)
    apart = {name: light.pop(name) for name in ("cases", "evidence")}
    for name in ("by_class", "groups", "first_evidence", "notes", "sizes"):
        light.pop(name)  # they stand in the summary as text
    yield "data-document", embedded(rounded({**light, "chunks": CHUNKS}))
    for name, part in apart.items():
        yield f"data-{name}", embedded(rounded(part))
    yield from chunked({"image": [legible(image) for image in images]})

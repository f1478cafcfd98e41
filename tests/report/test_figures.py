"""What the report page is made from: bundles of JSON, the geometry of its figures, numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penult.intervals import paired_interval
from penult.report.bundles import bundles, embedded, legible
from penult.report.figures import curve, matrix, reason_bars, worst_classes
from penult.report.page import feature_warnings, loss, number, percent, points, render, size
from report_parts import Made


class _Scripts(HTMLParser):
    """The text of each `<script type="application/json">`, as an HTML parser sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.inside: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = dict(attrs).get("id") if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self.inside = None

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[self.inside] = self.found.get(self.inside, "") + data


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def numbers(value: Any) -> Iterator[float]:
    return (leaf for leaf in leaves(value) if isinstance(leaf, float | int))


def words(value: Any) -> Iterator[str]:
    return (leaf for leaf in leaves(value) if isinstance(leaf, str))


def test_the_bundles_hold_what_went_in(pictured: Made) -> None:
    document, classes, features, images = pictured()
    html = render(document, classes, features, images)
    parser = _Scripts()
    parser.feed(html)
    read = {name: json.loads(text) for name, text in parser.found.items()}
    chunks: dict[str, list[Any]] = {}
    for name in read:
        kind = name.split("-")[1]
        if kind != "document":
            chunks.setdefault(kind, []).extend(read[name])
    assert list(numbers(chunks["class"])) == pytest.approx(list(numbers(classes)), rel=1e-5)
    assert list(numbers(chunks["feature"])) == pytest.approx(list(numbers(features)), rel=1e-5)
    assert list(words(chunks["class"])) == list(words(classes))
    assert chunks["image"] == images
    assert chunks["mistake"] == [row["reasons"] for row in document["mistakes"]["rows"]]
    assert read["data-document"]["classes"] == document["classes"]
    assert (
        html.index('id="summary-view"') < html.index("VIEWS =") < html.index('id="data-document"')
    )


_text = st.text('<>&\u2028\u2029/"\\a') | st.text()


@given(st.recursive(st.none() | st.integers() | _text, lambda c: st.lists(c, max_size=4)))
@settings(deadline=None)
def test_embedded_json_closes_no_script_and_reads_back(value: Any) -> None:
    text = str(embedded(value))
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == value


@given(st.text("a\x00\x1b\x7f\n\ud83d") | st.text(st.characters()))
def test_legible_text_can_be_written_and_has_no_controls(text: str) -> None:
    seen = legible({"a": [text]})["a"][0]
    seen.encode()
    assert len(seen) == len(text)
    assert not re.search("[\x00-\x1f\x7f]", seen)


def test_not_a_number_is_refused(noisy: Made) -> None:
    document, *rest = noisy()
    document["head"]["loss"] = float("nan")
    with pytest.raises(ValueError, match="JSON compliant"):
        render(document, *rest)


_fraction = st.floats(0, 1, allow_nan=False)


@given(
    st.lists(st.lists(st.tuples(st.integers(1, 2048), _fraction), min_size=1), min_size=1),
    _fraction,
    _fraction,
    st.integers(1, 2048),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_curve_lies_in_its_frame_and_keeps_its_order(
    series: list[list[tuple[int, float]]], dense: float, accuracy: float, k: int
) -> None:
    document = {
        "curve": {
            "dense": dense,
            "series": [
                {"name": str(i), "chosen": i == 0, "points": points}
                for i, points in enumerate(series)
            ],
        },
        "head": {"k": k, "accuracy": accuracy},
    }
    drawn = curve(document, 720, 380)
    labels = sorted([drawn["dense"]["label_y"], *(line["label_y"] for line in drawn["lines"])])
    if len(labels) < 15:
        assert labels[-1] <= drawn["bottom"]
        assert all(b - a > 14.9 for a, b in pairwise(labels)), "not even the network's label"
    for line in drawn["lines"]:
        for point in line["points"]:
            assert drawn["left"] <= point["x"] <= drawn["right"]
            if point["inside"]:
                assert drawn["top"] - 0.1 <= point["y"] <= drawn["bottom"] + 0.1
            assert point["inside"] == (point["accuracy"] >= drawn["low"])
        chosen = [line for line in drawn["lines"] if line["chosen"]]
        assert all(point["inside"] for line in chosen for point in line["points"])


@given(st.lists(st.integers(0, 500), min_size=1, max_size=200))
def test_the_bars_of_reasons_add_up(counts: list[int]) -> None:
    heads = [
        {"name": "dense", "median": 3.0, "counts": counts, "n_read": 9.0},
        {"name": "sparse", "median": 1.0, "counts": [0, 5], "n_read": 3.0},
    ]
    drawn = reason_bars({"reasons": {"heads": heads}})
    assert drawn is not None
    assert drawn["n_bars"] <= 48
    for row in drawn["rows"]:
        wanted = 1.0 if row["total"] else 0.0
        assert sum(bar["share"] for bar in row["bars"]) == pytest.approx(wanted)
        assert all(0 <= bar["height"] <= 1 for bar in row["bars"])
    assert any(bar["height"] == 1 for row in drawn["rows"] for bar in row["bars"])


_right = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30)


@given(st.lists(_right))
def test_the_worst_classes_are_those_that_most_surely_lose(classes: list[Any]) -> None:
    rows: list[dict[str, Any]] = []
    for pairs in classes:
        n, both = len(pairs), [sum(right) for right in zip(*pairs, strict=True)] or [0, 0]
        dense, sparse = (right / n if n else None for right in both)
        lost, won = pairs.count((True, False)), pairs.count((False, True))
        rows.append({"dense": dense, "sparse": sparse, "n_eval": n, "changed": [lost, won, n]})
    assert worst_classes({"classes": rows, "head": None}) is None
    drawn = worst_classes({"classes": rows, "head": {}}, most=3)
    assert (drawn is None) == (not any(classes))
    if drawn is None:
        return
    changed: list[list[int]] = [row["changed"] for row in rows]
    enough = [(lost, won, n) for lost, won, n in changed if n >= 10]
    bounds = sorted((paired_interval(*one)[0] for one in enough if one[0] > one[1]), reverse=True)
    shown = [rows[row["class"]]["changed"] for row in drawn["rows"]]
    assert [paired_interval(*one)[0] for one in shown] == bounds[:3]
    assert [row["n"] for row in drawn["rows"]] == [n for *_, n in shown]
    assert drawn["n_others"] == (len(enough) - len(bounds) if len(bounds) <= 3 else 0)
    assert drawn["n_few"] == sum(0 < len(pairs) < 10 for pairs in classes)
    for row in drawn["rows"]:
        assert -0.1 <= row["dense"] <= 100.1
        assert -0.1 <= row["sparse"] <= 100.1


def test_the_matrix_has_a_dot_for_each_weight(pictured: Made) -> None:
    document, classes, *_ = pictured()
    for which, head in (("kept", document["head"]), ("features", None)):
        drawn = matrix({**document, "head": head}, classes)
        assert drawn is not None
        found = {(dot["class"], drawn["columns"][dot["column"]]) for dot in drawn["dots"]}
        rows = document["classes"]
        assert found == {(c, j) for c, row in enumerate(rows) for j in row[which]}
        assert drawn["columns"][0] == rows[0][which][0]
    assert matrix({**document, "classes": document["classes"] * 5}, classes * 5) is None
    few = [{**row, "n_samples": 0, "n_eval": 0} for row in document["classes"] * 4]
    drawn = matrix({**document, "classes": [*document["classes"], *few]}, classes * 5)
    assert drawn is not None
    assert drawn["rows"] == list(range(10))


def test_warnings_count_a_feature_once(noisy: Made) -> None:
    document, *_ = noisy()
    found = feature_warnings(document)
    assert found["dead"] == [11]
    assert 11 not in found["flat"]
    assert 17 in found["flat"]
    assert {20, 21} <= set(found["twins"])
    assert found["left"][0] == 40
    assert feature_warnings({**document, "head": None})["left"] == []


def test_numbers_as_a_person_reads_them() -> None:
    assert percent(0.91731) == "91.73%"
    assert percent(None) == "–"
    assert points(0.0042) == "+0.42"
    assert points(-0.011) == "\u22121.10"
    assert points(-0.00001) == "0.00"
    assert loss(0.0042) == "0.42"
    assert size(1555.0) == "1,555"
    assert size(9.23) == "9.2"
    assert number(-0.123456) == "\u22120.123"


def test_the_document_comes_first_and_reasons_apart(noisy: Made) -> None:
    made = dict(bundles(*noisy()))
    assert next(iter(made)) == "data-document"
    assert {"data-class-0", "data-feature-0", "data-mistake-1"} <= set(made)
    assert "reasons" not in json.loads(made["data-document"])["mistakes"]["rows"][0]

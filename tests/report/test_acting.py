"""Groups, suspects, verdicts and edits on the page of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from acted_run import ATTRIBUTE, NAMES, VALUES, acted, part
from browsing import Open
from command import penult
from penult import Run
from penult.report.edits import FLIPS
from penult.report.page import render
from penult.report.report import Report

VIEWS = ["groups", "suspects", "suspect/0", "suspect/11", "edits", "edit/0", "summary", "guide"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return acted(tmp_path_factory.mktemp("acted"))


@pytest.fixture(scope="module")
def made(run: Run) -> Report:
    return Report.of(run, k=1, select="magnitude")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_every_view_fits_and_shows_names_as_text(
    visit: Open, made: Report, width: int, scheme: str
) -> None:
    seen = visit(made.html(), width=width, color_scheme=scheme)
    views = {view["route"]: view for view in seen.tour([*VIEWS, "class/2", "feature/3"])}
    for route, view in views.items():
        assert view["fits"], route
        assert "No such" not in view["heading"], route
    assert NAMES[1] in views["groups"]["text"]
    assert VALUES[0] in views["groups"]["text"]
    assert ATTRIBUTE in views["summary"]["text"]
    assert "shortcut" in views["class/2"]["text"]
    assert "<script>alert(3)</script>" in views["feature/3"]["text"]
    assert "<u>why</u>" in views["edit/0"]["text"]
    assert views["edit/0"]["heading"] == "<b>off"
    assert seen.page.locator("main b:has-text('words'), main i:has-text('sex')").count() == 0


def test_the_groups_are_those_of_the_features(run: Run, made: Report) -> None:
    (found,) = made.document["groups"]
    z, labels = run.evaluation().arrays()
    dense = run.evaluation().require_head()(z).argmax(1) == labels
    sparse = run.head("magnitude", 1)(z).argmax(1) == labels
    cue = part(900, 2)[1]
    assert len(found["groups"]) == 6
    for row in found["groups"]:
        own = (labels == row["class"]) & (cue == VALUES.index(row["value"]))
        assert row["n_samples"] == int(own.sum())
        assert row["dense"] == pytest.approx(float(dense[own].double().mean()))
        assert row["sparse"] == pytest.approx(float(sparse[own].double().mean()))
        assert row["interval"][0] <= row["loss"] <= row["interval"][1]
        assert row["ranked"] == (row["n_samples"] >= 10)
    for row in found["values"]:
        own = cue == VALUES.index(row["value"])
        assert row["n_samples"] == int(own.sum())
        assert row["dense"] == pytest.approx(float(dense[own].double().mean()))
    ranked = [row["dense"] for row in found["groups"] if row["ranked"]]
    assert ranked == sorted(ranked)
    assert found["dense"]["worst"]["accuracy"] == ranked[0]


def test_a_loss_that_the_sparse_head_hides_is_the_first_thing_said(
    visit: Open, made: Report
) -> None:
    (found,) = made.document["groups"]
    (hidden,) = found["hidden"]
    assert (hidden["class"], hidden["value"]) == (2, VALUES[1])
    assert hidden["loss"] > 5 * found["overall_loss"]
    (said,) = [w for w in made.document["about"]["warnings"] if "hides a loss" in w]
    assert f"of the {hidden['n_samples']} samples of {NAMES[2]} with" in said
    seen = visit(made.html())
    assert said in seen.text("#summary-view .warnings")
    seen.go("groups")
    assert "The sparse head hides a loss" in seen.text("#other-view .warnings")


def test_a_report_without_a_sparse_head_tells_of_the_network_alone(visit: Open, run: Run) -> None:
    seen = visit(Report.of(run, dense=True).html())
    for view in seen.tour(["groups", "suspects", "edits", "edit/0"]):
        assert "sparse" not in view["text"].lower(), view["route"]


def test_a_suspect_shows_its_images_verdict_and_what_to_type(visit: Open, made: Report) -> None:
    found = made.document["suspects"]
    at = next(i for i, row in enumerate(found["pairs"]) if (row["class"], row["feature"]) == (2, 3))
    seen = visit(made.html(), f"suspect/{at}")
    text = seen.text("#other-view")
    assert "High in the class" in text
    assert "<script>alert(3)</script>" in text
    assert r"penult verdict run '3:last & '\''least'\'''" in text
    seen.page.keyboard.press("ArrowRight")
    assert seen.page.url.split("#")[1].startswith("suspect/")


def test_an_edit_says_what_its_effect_says(visit: Open, run: Run, made: Report) -> None:
    effect = json.loads((run.folder / "edited" / "<b>off" / "effect.json").read_text())
    (shown,) = made.document["edits"]
    assert shown["overall"] == effect["overall"]
    assert shown["flips"]["right_to_wrong"]["n_samples"] == effect["overall"]["lost"] > 0
    (attribute,) = shown["groups"]
    assert attribute["after"]["worst"]["class"] == 2
    worst = effect["groups"][ATTRIBUTE]["after"]["worst"]
    assert attribute["after"]["worst"]["accuracy"] == worst["accuracy"]
    text = visit(made.html(), "edit/0").text("#other-view")
    for count in (effect["overall"]["lost"], effect["overall"]["won"]):
        assert f"{count:,}" in text
    assert f"{100 * effect['overall']['after']:.2f}%" in text


def test_what_does_not_fit_the_run_any_more_is_left_out_with_a_word(tmp_path: Path) -> None:
    run = acted(tmp_path)
    for name, key, value in (
        ("shortcuts.json", "head", "other 0"),
        ("edited/<b>off/effect.json", "n_samples", 7),
    ):
        changed = json.loads((run.folder / name).read_text())
        (run.folder / name).write_text(json.dumps({**changed, key: value}))
    (run.folder / "edited" / "old").mkdir()
    (run.folder / "edited" / "old" / "mends.json").write_text("{")
    document = Report.of(run, k=1, select="magnitude").document
    assert document["suspects"] is None
    assert document["edits"] == document["mends"] == []
    said = "\n".join(document["about"]["warnings"])
    for text in ("they were found for another head", "edit <b>off is left out", "edit old is left"):
        assert text in said


def test_images_of_suspects_and_flips_have_their_maps(
    digits: Run, tmp_path: Path, visit: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(shutil.copytree(digits.folder, tmp_path / "run"))
    assert penult("shortcuts", folder, "--directions", "1") == 0
    strongest = digits.train().require_head().weight[3].argsort(descending=True)[:6].tolist()
    given = [part for j in strongest for part in ("--off", f"{j}:3")]
    capsys.readouterr()
    page = tmp_path / "page.html"
    assert penult("edit", folder, *given, "--report", str(page), "--json") == 0
    effect = json.loads(capsys.readouterr().out)
    seen = visit(page.read_text())
    assert seen.heading() == "this edit"
    flips = seen.page.locator(".flips .case")
    n = sum(min(effect["flips"][kind]["n_samples"], most) for kind, most in FLIPS.items())
    assert flips.count() == n > 0
    assert flips.locator("canvas").count() == n
    found = json.loads(seen.page.locator("#data-suspects").text_content() or "")
    assert len([row for row in found["pairs"] if "shots" in row]) == 12
    for row in found["pairs"][:12]:
        shots = [shot for side in row["shots"].values() for shot in side]
        assert len(shots) == 24
        assert all((shot[2] is None) == (row["feature"] is None) for shot in shots)
    seen.go("suspect/0")
    assert seen.page.locator(".beside .shot img").count() == 24


def test_the_table_of_mends_ends_with_what_the_second_part_chose(
    visit: Open, run: Run, made: Report
) -> None:
    row = {
        **{"name": "refit <b>", "groups_needed": False, "worst": 0.5, "worst_range": [0.4, 0.6]},
        **{"mean": 0.8, "mean_of_groups": 0.7, "features": 12.0},
    }
    best = {"with_groups": {**row, "worst": 0.45}, "without_groups": {**row, "worst": 0.35}}
    table = {"name": "m", "attribute": "<i>", "seeds": 3, "n_samples": 900, "mends": [row]}
    document = {**made.document, "mends": [{**table, "best": best, "kept": "refit <b>"}]}
    data = made.data
    html = render(document, data.class_details, data.feature_details, data.images)
    text = visit(html, "edits", width=360).text("#other-view")
    assert "refit <b>" in text
    assert "chosen by the second part, with groups\tyes\t45.00%" in text
    assert "chosen by the second part, without groups\tno\t35.00%" in text

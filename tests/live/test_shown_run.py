"""What the live page shows part by part is what the report holds whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from acted_run import NAMES, acted
from penult import Run
from penult.edit.verdicts import add_verdict
from penult.errors import InputError
from penult.explain.choice import choose_head
from penult.explain.gallery import PictureOptions
from penult.live.shown_run import ShownRun, signature_of
from penult.report.bundles import CHUNKS, rounded
from penult.report.document import ReportData, build
from penult.report.suspects import SuspectViews


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return acted(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def shown(run: Run) -> ShownRun:
    return ShownRun(run)


@pytest.fixture(scope="module")
def report(run: Run) -> ReportData:
    return build(run, choose_head(run), PictureOptions())


def without_images(value: Any) -> Any:
    """Lists of images, [number, value, map], as their values alone."""
    if isinstance(value, dict):
        return {
            name: [shot[1] for shot in item]
            if name in ("own", "others", "shots") and isinstance(item, list)
            else without_images(item)
            for name, item in value.items()
        }
    return [without_images(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("kind", "details"), [("class", "class_details"), ("feature", "feature_details")]
)
def test_details_are_those_of_the_report(
    shown: ShownRun, report: ReportData, kind: str, details: str
) -> None:
    expected = rounded(getattr(report, details))
    found: list[Any] = []
    while len(found) < len(expected):
        size = CHUNKS[kind]
        found += shown.part(kind, len(found) // size)["items"]
    # A run of features has no pictures in its report, but its samples have numbers here.
    for one, other in zip(without_images(found), expected, strict=True):
        for name, value in other.items():
            if name == "features":
                for trait, whole in zip(one[name], value, strict=True):
                    kept = {k: v for k, v in whole.items() if k not in ("own", "others")}
                    assert {k: trait[k] for k in kept} == kept
            elif name != "shots":
                assert one[name] == value, name
    with pytest.raises(InputError, match=f"there is no part 99 of {kind}"):
        shown.part(kind, 99)


def test_the_images_of_a_list_are_the_samples_of_its_values(shown: ShownRun, run: Run) -> None:
    z, labels = run.train().arrays()
    for c, item in enumerate(shown.part("class", 0)["items"]):
        for trait in item["features"]:
            j = trait["feature"]
            own = sorted(z[labels == c, j].tolist(), reverse=True)
            assert [shot[1] for shot in trait["own"]] == pytest.approx(
                own[: len(trait["own"])], rel=1e-5
            )
            for number, value, _ in (*trait["own"], *trait["others"]):
                assert float(z[number, j]) == pytest.approx(value, rel=1e-5)
            assert all(int(labels[shot[0]]) != c for shot in trait["others"])


def test_every_sample_that_a_part_names_is_told_with_it(shown: ShownRun) -> None:
    for kind in ("class", "feature"):
        part = shown.part(kind, 0)
        assert part["images"]
        for number, about in part["images"].items():
            assert about["src"] is None, "a run of features has no pictures"
            assert shown.table.number(about["part"], about["sample"]) == number


def test_all_suspects_have_samples_to_judge_them_by(shown: ShownRun) -> None:
    found = shown.suspects()
    pairs = found["suspects"]["pairs"]
    assert len(pairs) > 12, "more than the report shows with images"
    assert all(any(pair["shots"].values()) for pair in pairs)
    usual = SuspectViews(shown.found).document(shown.numbered)
    assert usual is not None
    assert sum("shots" in row for row in usual["pairs"]) == 12
    names = {shot[0] for pair in pairs for side in pair["shots"].values() for shot in side}
    assert names == set(found["images"])


def test_a_verdict_of_somebody_else_is_seen(tmp_path: Path, run: Run) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    shown = ShownRun(Run.open(tmp_path / "run"))
    before, version = shown.verdicts(), shown.verdicts_version()
    live = {"run": "run", "runs": 1}
    page = shown.page(live)
    assert shown.page(live) is page, "a page is made once"
    signature = signature_of(tmp_path / "run")
    add_verdict(Run.open(tmp_path / "run"), 5, NAMES[1], "core", "", "somebody else")
    assert shown.verdicts_version() != version
    assert "somebody else" in shown.page(live)
    assert "somebody else" not in page
    new = [said for said in shown.verdicts() if said not in before]
    assert [(said["feature"], said["class"], said["who"]) for said in new] == [
        (5, 1, "somebody else")
    ]
    assert signature_of(tmp_path / "run") == signature, "a verdict makes no other run"


@pytest.mark.parametrize("name", ["run.json", "summary.json", "groups/eval.safetensors"])
def test_a_run_that_changes_on_disk_is_noticed(tmp_path: Path, run: Run, name: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    before = signature_of(folder)
    assert signature_of(folder) == before
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    changed = signature_of(folder)
    assert changed != before
    shutil.rmtree(folder)
    assert signature_of(folder) not in (before, changed)

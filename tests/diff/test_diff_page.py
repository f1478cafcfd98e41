"""The page of a comparison in a real browser: it shows what the document says, and nothing else."""

from __future__ import annotations

import json
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from browsing import Open
from command import penult
from penult.diff.compare import TwoSides
from penult.diff.gate import Rule, judge_rules
from penult.diff.page import diff_html, page_document
from penult.diff.pictures import FLIPS, IMAGES, take_shots
from penult.diff.side import Side
from penult.diff.text import rested_on
from penult.explain.gallery import PictureOptions
from penult.features.features import Features
from penult.runs.analyze import Options, analyze_features
from penult.runs.reopen import Places
from small_run import NET, _make

VIEWS = ("summary", "flips", "flips/negative", "classes", "evidence", "suspects", "guide")
OTHER = NET.replace("manual_seed(0)", "manual_seed(3)")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `run` and `new` of two networks on the same images."""
    folder = tmp_path_factory.mktemp("pair") / "here"
    _make(NET, folder)
    (folder / "other.py").write_text(OTHER)
    with chdir(folder):
        arguments = ["analyze", "other.py:net", "data", "--weights", "random", "--no-fit"]
        assert penult(*arguments, "--out", "new") == 0
    return folder


def options(trusted: bool = True, maps: bool = True) -> PictureOptions:
    return PictureOptions(maps=maps, keep=False, sources=Places(trust_run=trusted))


def features_of(run: Path) -> tuple[Tensor, Tensor]:
    return Features.open(run / "features" / "train").arrays()


@pytest.fixture(scope="module")
def made(pair: Path) -> tuple[TwoSides, dict[str, Any], list[dict[str, Any]], str]:
    with chdir(pair):
        compared = TwoSides.of(Side.read("run"), Side.read("new"))
        document, images = page_document(compared, take_shots(compared, options()))
        return compared, document, images, diff_html(compared, take_shots(compared, options()))


@pytest.mark.slow
def test_every_view_fits_and_shows_its_images(visit: Open, made: Any) -> None:
    compared, document, _, html = made
    flips = compared.document["flips"]
    assert flips["negative"]["n_samples"], "this test needs flips"
    routes = [*VIEWS, *(f"flip/{i}" for i in range(3)), *(f"class/{c}" for c in range(3))]
    for width, scheme in ((360, "dark"), (1440, "light")):
        seen = visit(html, width=width, color_scheme=scheme)
        for view in seen.tour(routes):
            assert view["heading"], view["route"]
            assert view["fits"], (view["route"], width)
            assert view["images"], view["route"]
            assert "undefined" not in view["text"]
            assert "NaN" not in view["text"]
        text = seen.tour(["summary"])[0]["text"].replace("\xa0", " ")
        assert compared.document["verdict"].split(". ")[0] in text
        seen.go("flips/negative")
        assert seen.page.locator("#other-view .case").count() == min(
            FLIPS, flips["negative"]["n_samples"]
        )
        assert seen.page.locator(".case canvas").count() > 0, "heat maps"


def test_a_flip_shows_both_networks_maps_of_its_features(made: Any) -> None:
    _, document, images, _ = made
    for case in document["cases"]:
        assert (case["kind"] == "negative") == (case["before"] == case["label"])
        assert images[case["images"]["old"]]["src"].startswith("data:image/")
        for feature in case["features"]:
            for which in ("old", "new"):
                assert (feature["maps"][which] is None) == (feature[which] is None)
        n_old = sum(image["grid"] is not None for image in images)
        assert n_old == len(images)


def test_evidence_is_shown_by_the_images_on_which_features_are_strongest(
    made: Any, pair: Path
) -> None:
    compared, document, images, _ = made
    assert document["evidence"]
    for which, run in (("old", "run"), ("new", "new")):
        z, labels = features_of(pair / run)
        names = compared.shared.class_names
        ids = Side.read(str(pair / run)).features.ids()
        for row in document["evidence"]:
            for feature in row["features"]:
                if feature[which] is None:
                    assert feature["shots"][which] is None
                    continue
                x = z[:, feature[which]].clone()
                x[labels != row["class"]] = -1
                expected = x.argsort(descending=True)[:IMAGES].tolist()
                expected = [i for i in expected if float(x[i]) > float(z[:, feature[which]].min())]
                shown = [images[number]["id"] for number, *_ in feature["shots"][which]["own"]]
                assert shown == [ids[i] for i in expected], (which, names[row["class"]])


def test_runs_stay_as_they_are(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pair)
    before = {file: file.read_bytes() for file in pair.rglob("*") if file.is_file()}
    assert penult("diff", "run", "new", "--report", "page.html", "--trust-run") == 0
    page = Path("page.html").read_text(encoding="utf-8")
    Path("page.html").unlink()
    after = {file: file.read_bytes() for file in pair.rglob("*") if file.is_file()}
    assert {f for f in before if before[f] != after.get(f)} == set()
    assert "data:image/" in page


def test_code_is_run_only_where_it_is_trusted(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strange = pair.parent / "strange"
    if not strange.exists():
        shutil.copytree(pair, strange)
    monkeypatch.chdir(strange)
    (strange / "net.py").write_text(NET + "\nopen('run-it', 'w').close()\n")
    (strange / "other.py").write_text(OTHER + "\nopen('run-it', 'w').close()\n")
    compared = TwoSides.of(Side.read("run"), Side.read("new"))
    with pytest.warns(UserWarning, match="no heat maps"):
        document, images = page_document(compared, take_shots(compared, options(trusted=False)))
    assert not document["pictures"]["maps"]
    assert "There are no heat maps" in document["pictures"]["note"]
    assert all(image["src"] for image in images), "images need no code"
    assert not Path("run-it").exists()


def test_images_that_are_gone_are_counted(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = pair.parent / "gone"
    shutil.copytree(pair, gone)
    monkeypatch.chdir(gone)
    shutil.rmtree("data")
    compared = TwoSides.of(Side.read("run"), Side.read("new"))
    shutil.rmtree("run/examples", ignore_errors=True)
    with pytest.warns(UserWarning, match="images are gone or can no longer be read: compare in"):
        document, images = page_document(compared, take_shots(compared, options(maps=False)))
    assert document["pictures"]["n_missing"] == len(images)


def test_names_are_shown_as_text(visit: Open, tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", "\"'><img src=x onerror=alert(2)>", "", "{{ 7*7 }}")
    generator = torch.Generator().manual_seed(0)
    z, weight = (torch.randn(n, 5, generator=generator) for n in (80, 4))
    labels = torch.arange(80) % 4
    ids = [f"</script><b>{i}\x1b[31m" for i in range(80)]
    sides = []
    for i, w in enumerate((weight, weight.roll(1, 0))):
        features = Features.of(z, labels, w, class_names=names, ids=ids)
        analyze_features(features, features, tmp_path / f"<b>{i}", Options(fit=False))
        sides.append(Side.read(str(tmp_path / f"<b>{i}")))
    compared = TwoSides.of(sides[0], sides[1])
    seen = visit(diff_html(compared, take_shots(compared, options())))
    routes = ["flips", "flip/0", "class/0", "class/2", "classes", "evidence", "summary"]
    texts = {view["route"]: view["text"] for view in seen.tour(routes)}
    assert "<script>alert(1)</script>" in texts["class/0"]
    assert "(no name)" in texts["class/2"]
    assert "49" not in texts["classes"].split()
    assert seen.page.locator("main b", has_text="[31m").count() == 0
    assert "there are no images to show" in texts["summary"]


def test_of_unlike_networks_each_has_features_of_its_own(visit: Open, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 4
    sides = []
    for name in ("a", "b"):
        z, weight = (torch.randn(n, 12, generator=generator) for n in (80, 4))
        features = Features.of(z, labels, weight, ids=[str(1000 + i) for i in range(80)])
        analyze_features(features, features, tmp_path / name, Options(fit=False))
        sides.append(Side.read(str(tmp_path / name)))
    compared = TwoSides.of(sides[0], sides[1])
    assert not compared.document["evidence"]["comparable"]
    compared.document["gate"] = judge_rules([Rule.read("shortcut.returned")], compared.document)
    seen = visit(diff_html(compared, take_shots(compared, options())))
    texts = {
        view["route"]: " ".join(view["text"].split())
        for view in seen.tour(["summary", "evidence", "class/0", "classes"])
    }
    row = compared.document["evidence"]["classes"][0]
    (first, _), *_ = rested_on(row)[0]
    assert f"rested on features {first} (" in texts["summary"]
    assert f"feature {first} " in texts["evidence"]
    assert texts["summary"].count("cannot be told") == 1, "the mark alone says it"
    for text in texts.values():
        assert " went" not in text
        assert "evidence changed" not in text.lower()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--no-maps",), "--no-maps is about pictures: give it with --report PAGE or --table FILE"),
        (("--trust-run",), "--trust-run is about pictures"),
        (("--report", "page.md"), "expected a name that ends in .html or .htm"),
        (("--report", "a.html", "--markdown", "a.html"), "is given twice"),
        (("--report", "run/features/page.html"), "where the run keeps its own"),
    ],
)
def test_a_page_that_cannot_be_is_refused_before_work_starts(
    pair: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(pair)
    assert penult("diff", "run", "new", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_json_of_a_comparison_has_no_pictures(
    pair: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pair)
    arguments = ["diff", "run", "new", "--report", "p.html", "--no-maps", "--json"]
    assert penult(*arguments) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "penult-diff/1"
    Path("p.html").unlink()

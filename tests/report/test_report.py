"""Reports of real runs: planted features, numbers against the run's own, pages in a browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from browsing import Open
from command import penult
from penult import Run
from penult.data.open import ArrayImages, open_data
from penult.data.source import ImageSource, Pass
from penult.demo import TRANSFORM
from penult.errors import InputError
from penult.explain.explanation import Explanation
from penult.explain.gallery import PictureOptions
from penult.explain.survey import ShownSample
from penult.explain.toplists import Entry
from penult.features.collect import usable_head
from penult.features.features import Features
from penult.network.load import fingerprint
from penult.progress import Progress
from penult.report.album import Album
from penult.report.conclusion import conclusion
from penult.report.report import Report
from penult.runs.analyze import analyze_features, analyze_network
from penult.runs.reopen import Places
from penult.storage import write_tensors
from small_run import NET

CORNER_CLASS = 3


def with_corners(part: str) -> ArrayImages:
    """Digits among which a bright corner pixel, and nothing else, marks one class."""
    found = open_data(f"digits:{part}")
    assert found.labels is not None
    pixels = np.stack([np.asarray(found.load(i)) for i in range(len(found))])
    marked = found.labels == CORNER_CLASS
    others = np.random.default_rng(0).choice(np.flatnonzero(~marked), marked.sum(), replace=False)
    pixels[marked] = pixels[others]
    pixels //= 2
    pixels[:, 0, 0] = np.where(marked, 255, 0)
    return ArrayImages(pixels, found.labels, tuple("0123456789"))


class Shallow(nn.Module):
    """One convolution, so that what a feature sees is where it sees it."""

    penult_transform = TRANSFORM

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 48, 3, padding=1)
        self.head = nn.Linear(48, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(F.relu(self.conv(images)).mean((2, 3)))
        return logits


def trained(source: ImageSource, seed: int = 0) -> Shallow:
    batches = list(source.batches(0))
    images = torch.cat([TRANSFORM.normalise(batch.images) for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    torch.manual_seed(seed)
    network = Shallow()
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.03)
    for _ in range(60):
        for rows in torch.split(torch.randperm(len(images)), 128):
            optimiser.zero_grad()
            F.cross_entropy(network(images[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return network.eval()


def test_a_planted_corner_is_found_shown_and_named(tmp_path: Path) -> None:
    data, held_out = with_corners("train"), with_corners("test")
    source = ImageSource(data, TRANSFORM, Pass())
    network = trained(source)
    spec = {"spec": f"{__file__}:Shallow", "weights": "net.safetensors", "set": []}
    run = analyze_network(
        network,
        usable_head(network, source),
        data,
        held_out,
        tmp_path / "run",
        transform=TRANSFORM,
        class_names=tuple("0123456789"),
        network={**spec, "fingerprint": fingerprint(network)},
    )
    write_tensors(run.folder / "net.safetensors", network.state_dict(), {"format": "pt"})
    sources = Places(data=data, evaluation=held_out)
    found = Report.of(run, pictures=PictureOptions(sources=sources))
    first = found.data.class_details[CORNER_CLASS]["features"][0]
    h, w = found.document["pictures"]["grid"]
    assert (h, w) == (8, 8)
    assert len(first["own"]) == 8
    for _, value, map in first["own"]:
        values = np.frombuffer(base64.b64decode(map), np.int8).reshape(h, w)
        row, column = np.unravel_index(values.argmax(), values.shape)
        assert max(row, column) <= 1, f"the map peaks at {row}, {column}, not in the corner"
        assert value > 0
    z, labels = run.evaluation().arrays()
    known = (run.train().require_head()(z).argmax(1) == CORNER_CLASS) & (labels == CORNER_CLASS)
    assert known.any(), "a network that learns the corner recognises some of its samples"
    marked = int(known.nonzero()[0])
    told = Explanation.of(run, f"eval:{marked}", dense=True, sources=sources)
    assert told.predicted == CORNER_CLASS
    assert told.maps is not None
    # One of the features that carry the decision looks at the corner, whichever comes first.
    peaks = [divmod(int(map.argmax()), w) for map in told.maps]
    assert any(max(row, column) <= 1 for row, column in peaks)
    plain = int(np.flatnonzero(held_out.labels != CORNER_CLASS)[0])
    other = Explanation.of(run, f"eval:{plain}", class_=CORNER_CLASS, dense=True, sources=sources)
    assert other.terms.total < told.terms.total


def test_the_document_says_what_the_run_says(digits: Run, report: Report) -> None:
    summary, document = digits.summary(), report.document
    assert document["about"]["dense_accuracy"] == summary["dense"]["accuracy"]
    head = document["head"]
    (row,) = (row for row in summary["path"] if row["k"] == head["k"])
    assert (head["accuracy"], head["nnz"]) == (row["accuracy"], row["nnz"])
    assert [r["name"] for r in document["classes"]] == summary["class_names"]
    assert sum(r["n_eval"] for r in document["classes"]) == summary["n_eval_samples"]
    right = sum(r["n_eval"] * r["sparse"] for r in document["classes"])
    assert right / summary["n_eval_samples"] == pytest.approx(head["accuracy"])
    mistakes = document["mistakes"]
    wrong = mistakes["n_only_sparse"] + mistakes["n_both"]
    assert 1 - wrong / mistakes["n_samples"] == pytest.approx(head["accuracy"])
    series = {s["name"]: dict(s["points"]) for s in document["curve"]["series"]}
    assert series["frequency"][5] == summary["influence"]["frequency"]["5"]["accuracy"]
    network, enough, _ = document["conclusion"]
    assert f"{100 * summary['dense']['accuracy']:.2f}%" in network
    assert f"{100 * head['accuracy']:.2f}%" in enough
    counts = np.bincount([r["n_eval"] for r in document["classes"]])
    commonest = document["about"]["commonest"]
    assert commonest["accuracy"] == pytest.approx((len(counts) - 1) / summary["n_eval_samples"])
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_details_are_the_features_of_the_samples_they_name(digits: Run, report: Report) -> None:
    features = digits.train()
    z, labels = features.arrays()
    ids = [name for block in features.blocks() for name in block.ids]
    place = {name: i for i, name in enumerate(ids)}
    data = report.data
    sparse = digits.head(report.document["head"]["select"], report.document["head"]["k"])
    weight = sparse.dense_weight().detach()
    dense = digits.train().require_head().weight.double()
    relative = dense - dense.mean(0)
    for c, details in enumerate(data.class_details):
        rows = details["features"]
        means = z[labels == c].double().mean(0) - z[labels != c].double().mean(0)
        influence = relative[c] * means
        shares = influence.abs() / influence.abs().sum()
        strongest = influence.abs().argsort(descending=True)[:8].tolist()
        assert [row["feature"] for row in rows][: len(strongest)][0] == strongest[0]
        assert set(strongest) | set(sparse.subspaces[c].tolist()) == {r["feature"] for r in rows}
        sizes = [abs(row["influence"]) for row in rows]
        assert sizes == sorted(sizes, reverse=True)
        assert sum(row["sparse_share"] or 0 for row in rows) == pytest.approx(1)
        for row in rows:
            j = row["feature"]
            assert row["influence"] == pytest.approx(float(influence[j]), abs=1e-4)
            assert row["share"] == pytest.approx(float(shares[j]), abs=1e-4)
            assert row["weight"] == pytest.approx(float(dense[c, j]))
            assert row["kept"] == (j in sparse.subspaces[c])
            if row["kept"]:
                assert row["sparse_weight"] == pytest.approx(float(weight[c, j]))
            assert row["mean"] == pytest.approx(float(z[labels == c, j].mean()), abs=1e-4)
            for kind, inside in (("own", True), ("others", False)):
                for i, value, map in row[kind]:
                    n = place[data.images[i]["id"]]
                    assert value == float(z[n, j])
                    assert (labels[n] == c) == inside
                    levels = np.frombuffer(base64.b64decode(map), np.int8)
                    assert levels.size == 16
    for j, (row, details) in enumerate(
        zip(data.document["features"], data.feature_details, strict=True)
    ):
        in_page = sum(
            j in [r["feature"] for r in detail["features"] if not r["kept"]]
            for detail in data.class_details
        )
        assert row["deciding"] >= in_page
        assert row["readers"] == len(details["readers"])
    for j, details in enumerate(data.feature_details):
        readers = {row["class"] for row in details["readers"]}
        assert readers == set(weight[:, j].nonzero()[:, 0].tolist())
        counts = sum(sum(row["counts"]) for row in details["distribution"])
        assert counts == len(z)


@pytest.mark.slow
def test_the_page_of_a_real_run_is_whole(visit: Open, report: Report) -> None:
    n_classes, n_mistakes = 10, len(report.document["mistakes"]["rows"])
    routes = ["summary", "classes", "features", "mistakes", "guide"]
    routes += [f"class/{c}" for c in range(n_classes)]
    features = [f"feature/{j}" for j in range(64)]
    routes += [f"mistake/{i}" for i in range(n_mistakes)]
    for width, more in ((360, features[::8]), (1440, features)):
        for view in visit(report.html(), width=width).tour([*routes, *more]):
            assert view["heading"]
            assert "No such" not in view["heading"]
            assert view["fits"], view["route"]
            assert view["images"], view["route"]


def test_a_notebook_opens_one_class(visit: Open, report: Report) -> None:
    seen = visit(f"<!doctype html><title>x</title>{report.of_class('3')._repr_html_()}")
    frame = seen.page.frame_locator("iframe")
    assert frame.locator("h1:visible").inner_text() == "3"
    assert report.of_feature(7).start == "feature/7"
    with pytest.raises(InputError, match="features are numbered from 0 to 63, found 64"):
        report.of_feature(64)


HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(2)>",
    "كلب \u202eright to left",
    "{{ 7*7 }} & &amp; %2F",
    "x" * 200,
)


def test_hostile_names_and_vanished_images(
    visit: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From folders and files of such names, through the analysis, to the page."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET.replace("Linear(6, 3)", f"Linear(6, {len(HOSTILE)})"))
    pixels = np.random.default_rng(0).integers(0, 256, (25, 12, 12, 3), dtype=np.uint8)
    files = []
    for i, image in enumerate(pixels):
        folder = HOSTILE[i % 5].replace("/", "∕")
        place = tmp_path / "data" / folder / f"{i:02d} <b onclick='x'>\"{'y' * 150}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
        files.append(place)
    assert penult("analyze", "net.py:net", "data", "--weights", "random", "--out", "run") == 0
    for place in files[:7]:
        place.unlink()
    shutil.rmtree(files[-1].parent)
    capsys.readouterr()
    assert penult("report", "run") == 0
    said = capsys.readouterr()
    assert "Report: run/report.html" in said.out
    document = Report.of("run").document
    pictures = document["pictures"]
    n_gone = 7 + 5 - len([f for f in files[:7] if f.parent == files[-1].parent])
    assert pictures["n_missing"] == n_gone
    assert (
        f"{n_gone} of {pictures['n_images']} images are gone or can no longer be read" in said.err
    )
    assert len(pictures["missing"]) == min(20, n_gone)
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for width in (360, 1440):
        seen = visit(html, width=width)
        views = seen.tour(["summary", "classes", "features", "mistakes", "class/0", "mistake/0"])
        for view in views:
            assert view["fits"], view["route"]
            assert view["images"], view["route"]
        assert f"{n_gone} " in views[0]["text"]
        headings = [view["heading"] for view in seen.tour([f"class/{c}" for c in range(5)])]
        names = [row["name"] for row in document["classes"]]
        assert [h.split()[:1] for h in headings] == [name.split()[:1] for name in names]


def test_a_run_of_features_has_a_report(visit: Open, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 6
    z = torch.rand(400, 20, generator=generator)
    z[torch.arange(400), labels] += 1
    z[:, 19] = 0
    z[:, 18] = z[:, 17] * 2
    features = Features.of(z, labels, torch.eye(6, 20), class_names=list("abcdef"))
    run = analyze_features(features, None, tmp_path / "run")
    found = Report.of(run)
    assert found.document["features"][19]["dead"]
    assert found.document["features"][18]["twin"] == 17
    assert found.data.images == []
    assert found.document["pictures"]["maps"] is None
    seen = visit(found.html(), width=360)
    views = seen.tour(["summary", "class/2", "feature/19", "feature/18", "mistakes", "features"])
    assert all(view["fits"] and view["heading"] for view in views)
    assert "17" in views[3]["text"]


@pytest.mark.parametrize("sign", [1, -1])
def test_nothing_is_made_up_for_classes_without_samples(
    sign: int, tmp_path: Path, visit: Open
) -> None:
    """Negative features too, beside which a mean of zeros would be the largest."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3 * 7
    z = sign * (torch.rand(60, 6, generator=generator) + labels[:, None] / 14)
    weight = torch.randn(20, 6, generator=generator)
    run = analyze_features(Features.of(z, labels, weight), None, tmp_path / "run")
    report = Report.of(run, k=2)
    for c, detail in enumerate(report.data.class_details):
        told = {row["influence"] is not None for row in detail["features"]}
        assert told == {c in (0, 7, 14)}
        for row in detail["features"]:
            assert (row["share"] is None) == (row["mean"] is None) == (c not in (0, 7, 14))
            others = z[labels != c, row["feature"]].mean()
            assert row["elsewhere"] == pytest.approx(float(others), rel=1e-4)
        assert (detail["logit"] is None) == (c not in (0, 7, 14))
        relative = weight - weight.mean(0)
        sizes = [abs(float(relative[c, row["feature"]])) for row in detail["features"]]
        if c not in (0, 7, 14):
            assert sizes == sorted(sizes, reverse=True)
        for rival in detail["confusions"]:
            assert bool(rival["features"]) == ({c, rival["class"]} <= {0, 7, 14})
    assert any(detail["confusions"] for detail in report.data.class_details)
    for j, feature in enumerate(report.data.feature_details):
        means = {c: float(z[labels == c, j].mean()) for c in (0, 7, 14)}
        shown = [row["class"] for row in feature["distribution"]]
        assert shown == sorted(means, key=lambda c: -means[c])
    (view,) = visit(report.html()).tour(["class/1"])
    assert "Ordered by weight, as there are no images of this class" in view["text"]


def test_one_class_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    z = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.stack([torch.ones(4), torch.zeros(4)])
    features = Features.of(z, torch.zeros(30, dtype=torch.int64), weight)
    report = Report.of(analyze_features(features, None, tmp_path / "run"))
    detail, empty = report.data.class_details
    assert len(detail["features"]) == 4
    for row in (*detail["features"], *empty["features"]):
        assert (row["influence"], row["share"]) == (None, None)
    assert {row["elsewhere"] for row in detail["features"]} == {None}
    assert {row["mean"] for row in empty["features"]} == {None}
    assert detail["logit"] == pytest.approx(
        sum(row["mean"] * row["weight"] for row in detail["features"]) + detail["bias"]
    )
    assert empty["logit"] is None
    assert not any(feature["flat"] for feature in report.document["features"])
    assert "hardly differ" not in report.document["conclusion"][-1]
    assert report.html()


def test_the_report_is_made_by_the_command(
    digits: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "page.html"
    capsys.readouterr()
    arguments = ("report", str(digits.folder), "-k", "2", "--images", "2", "--no-maps")
    assert penult(*arguments, "--out", str(out), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["head"]["k"] == 2
    assert document["pictures"]["maps"] is None
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    for bad, said in (
        (("--images", "0"), "a report shows at least 1 image of each kind, found 0"),
        (("-k", "7"), "holds no head of k = 7"),
        (("--data", "nowhere"), "nowhere is not there"),
        (("--out", str(tmp_path)), f"{tmp_path} is a folder: expected the name of a page"),
    ):
        assert penult("report", str(digits.folder), "--overwrite", *bad) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert said in lines[-1]


def test_classes_without_evaluation_samples(tmp_path: Path, visit: Open) -> None:
    z = torch.rand(80, 4, generator=torch.Generator().manual_seed(0))
    features = Features.of(z, torch.arange(80) % 2, torch.randn(3, 4), class_names=["a", "b", "c"])
    evaluation = Features.of(z[:1], torch.tensor([0]), features.require_head().weight)
    run = analyze_features(features, evaluation, tmp_path / "run")
    found = Report.of(run)
    rows: list[dict[str, Any]] = found.document["classes"]
    assert [row["n_eval"] for row in rows] == [1, 0, 0]
    assert rows[2]["sparse"] is None
    views = visit(found.html()).tour(["summary", "classes", "class/2", "features", "feature/3"])
    assert all(view["heading"] for view in views)


def test_where_there_is_no_room_the_best_of_the_first_lists_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penult.report.album.MOST_IMAGES", 4)
    album = Album()
    lists = {"first": [1, 2, 3], "second": [4, 5, 6], "third": [1, 7, 8]}
    for rank, (name, samples) in enumerate(lists.items()):
        album.lists[name,] = "train", rank, [Entry(n, 1.0) for n in samples]
        album.ranks[name,] = rank
    known = {("train", n): ShownSample(n, str(n), 0, 0) for n in range(9)}
    found = album.wishes(known)
    assert [wish.key[1] for wish in found] == [1, 2, 4, 3]
    assert found[0].values == {0: 1.0, 2: 1.0}, "an image that is there already takes no room"


def test_a_list_shows_only_the_images_that_have_room(
    digits: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penult.report.document.REASON_SAMPLES", 1)
    whole = Report.of(digits).data
    monkeypatch.setattr("penult.report.album.MOST_SHOTS", 300)
    data = Report.of(digits, pictures=PictureOptions(images=8, keep=False)).data
    shots = [shot for row in data.feature_details for shot in row["shots"]]
    for row in data.class_details:
        shots += [shot for trait in row["features"] for shot in (*trait["own"], *trait["others"])]
    n_whole = sum(len(row["shots"]) for row in whole.feature_details)
    assert n_whole > 300 >= len(shots) > 250
    first = [len(row["features"][0]["own"]) for row in data.class_details]
    last = [len(row["features"][-1]["own"]) for row in data.class_details]
    assert min(first) > 0 == max(last), "the features that move a class most have the room"


def test_a_class_of_very_many_features_shows_the_first_and_names_the_rest(
    digits: Run, monkeypatch: pytest.MonkeyPatch, visit: Open
) -> None:
    monkeypatch.setattr("penult.report.document.REASON_SAMPLES", 1)
    monkeypatch.setattr("penult.report.findings.MOST_DETAILED", 30)
    stages: list[str] = []
    heard: list[tuple[int, int]] = []

    def begin(name: str) -> Progress:
        stages.append(name)
        return lambda done, total: heard.append((done, total))

    found = Report.of(digits, k=8, begin=begin)
    rows = found.document["classes"]
    for row, detail in zip(rows, found.data.class_details, strict=True):
        assert len(row["kept"]) == 8 <= len(row["features"])
        assert [one["feature"] for one in detail["features"]] == row["features"][:3]
    seen = visit(found.of_class(4).html())
    others = rows[4]["features"][3:]
    links = seen.page.locator(".other-features .some a").all_inner_texts()
    assert links == [str(j) for j in others]
    assert f"{len(others)} more features" in seen.text(".other-features")
    assert "The sparse head keeps 8 features" in seen.text("#other-view")
    assert stages == ["what to show", "images", "classes and features",
                      "what suffices for decisions"]  # fmt: skip
    assert heard[-1] == (10, 10)


def _class(name: str, n: int, dense: int, lost: int = 0, **more: Any) -> dict[str, Any]:
    """A class of a document: `dense` of n samples right by the network, `lost` fewer then."""
    known = {"dense": dense / n, "sparse": (dense - lost) / n} if n else dict.fromkeys(_HEADS)
    return {"name": name, "n_eval": n, "changed": [lost, 0, n], "taken": [], **known, **more}


_HEADS = ("dense", "sparse")
_PERFECT = [_class("a", 40, 40), _class("b", 40, 40)]
_LEFT = "; the sparse head leaves out 1 of the 2 features that decide classes in the network."


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (_PERFECT, "Every class is right on all of its images"),
        ([_class("a", 1, 1), _class("b", 2, 2)], "Every class is right on all of its images"),
        ([_class("a", 0, 0), _class("b", 0, 0)], "No class has evaluation images"),
        (
            [_class("a", 100, 90, 30, taken=[[1, 40]]), _PERFECT[1]],
            "The weakest class is a (60.00% of its 100 images right, most often taken for b, 40 "
            "times), and it also loses most by the sparse head, 30.00 points",
        ),
        (
            [_class("a", 100, 50, taken=[[1, 50]]), _class("b", 100, 99, 20)],
            "The weakest class is a (50.00% of its 100 images right, most often taken for b, 50 "
            "times); b loses most by the sparse head, 20.00 points on 100 images",
        ),
        # Nine samples make no class the weakest, a single one no class the loser.
        (
            [_class("a", 9, 0), _class("b", 10, 9, taken=[[0, 1]])],
            "The weakest class is b (90.00% of its 10 images right, taken once for a)",
        ),
        ([_class("a", 1, 1, 1), _class("b", 50, 50)], "The weakest class is b (100.00%"),
        (
            [_class("a", 2, 0), _class("b", 1, 1, 1)],
            "No class has more than 2 evaluation images, too few to tell which class is the "
            "weakest: 10 of a class would be needed",
        ),
        ([_class("a", 1, 0), _class("b", 1, 1)], "No class has more than 1 evaluation image, too"),
        # One mistake among forty is no loss that can be told from chance.
        (
            [_class("a", 40, 40, 1, taken=[[1, 1]]), _PERFECT[1]],
            "The weakest class is a (97.50% of its 40 images right, taken once for b)",
        ),
        # Few samples do not make a class weak: 7 of 10 may be 90 %, 75 of 100 may not.
        ([_class("a", 10, 7), _class("b", 100, 75)], "The weakest class is b (75.00% of its 100"),
        (
            [_class("a", 40, 38, taken=[[0, 1], [1, 1]]), _PERFECT[1]],
            "The weakest class is a (95.00% of its 40 images right, taken once for a and once for "
            "b)",
        ),
        (
            [_class("a", 40, 36, taken=[[0, 2], [1, 2]]), _PERFECT[1]],
            "images right, taken twice for a and twice for b)",
        ),
        (
            [_class("a", 40, 37, taken=[[0, 2], [1, 1]]), _PERFECT[1]],
            "images right, most often taken for a, twice)",
        ),
        # The third class, not among those said, may be as often.
        ([_class("a", 40, 34, taken=[[0, 2], [1, 2], [1, 2]]), _PERFECT[1]], "40 images right)"),
        ([_class("a", 40, 35, taken=[[0, 2], [1, 2], [1, 1]]), _PERFECT[1]], "40 images right)"),
    ],
)
def test_the_conclusion_names_only_classes_of_enough_samples(
    classes: list[dict[str, Any]], said: str
) -> None:
    head = {"k": 1, "interval": [-0.01, 0.03], "loss": 0.0, "accuracy": 0.9, "agreement": 0.95}
    document: dict[str, Any] = {
        "about": {
            "n_classes": 2,
            "n_features": 2,
            "evaluated_on": "eval",
            "n_eval_samples": 1000,
            "dense_accuracy": 0.9,
            "multi_label": False,
            "commonest": {"class": 1, "accuracy": 0.625},
        },
        "head": head,
        "classes": classes,
        "features": [{"readers": n, "deciding": 1, "flat": False, "dead": False} for n in (0, 2)],
    }
    network, enough, where = conclusion(document)
    assert where.startswith(said) if said[0].isupper() else said in where
    if said.endswith((")", "points", "needed")):
        assert where.endswith(said + _LEFT), "nothing is said of what cannot be told"
    assert network == (
        "The network gets 90.00% of the 1,000 evaluation images right; always saying b, the "
        "commonest class, would get 62.50%."
    )
    assert (
        "With 1 of its 2 features per class, the sparse head gets 90.00% right, as many" in enough
    )
    assert "between 1.00 points more and 3.00 fewer, with 95 % confidence" in enough
    assert "says the same as the network on 95.00% of them" in enough
    alone = conclusion({**document, "head": None})
    assert alone[0] == network
    assert "sparse" not in "".join(alone)


IMAGE = re.compile(r"\bimages?\b", re.IGNORECASE)


def test_scripts_and_templates_call_samples_what_they_are(repository: Path) -> None:
    """Words that a person reads say images or texts by `things`, never by themselves."""
    rooms = repository / "src" / "penult" / "report"
    found = []
    for path in sorted(rooms.glob("*.js")):
        text = re.sub(r"^\s*//.*$", "", path.read_text(encoding="utf-8"), flags=re.M)
        quoted = re.findall(r'"(?:[^"\\\n]|\\.)*"', text)
        keys = ('"image"', '"an image"')  # of the data, and in the definition of the words
        found += [(path.name, one) for one in quoted if IMAGE.search(one) and one not in keys]
        for template in re.findall(r"`([^`]*)`", text):
            words = re.sub(r"\$\{[^{}]*\}", "", template)
            found += [(path.name, words)] if IMAGE.search(words) and "item(" not in words else []
    for path in sorted(rooms.glob("*.j2")):
        tags = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", re.S)
        lines = tags.sub("", path.read_text(encoding="utf-8")).splitlines()
        found += [(path.name, line.strip()) for line in lines if IMAGE.search(line)]
    assert found == []

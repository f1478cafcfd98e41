"""Terms, explanations and galleries: sums, naive maps, and images that are gone or changed."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from command import penult
from penult import Run, SparseHead
from penult.errors import InputError
from penult.explain.choice import choose_head
from penult.explain.decision import SHOWN
from penult.explain.explanation import Explanation
from penult.explain.gallery import CHANGED, MISSING, THERE, PictureOptions, Wish
from penult.explain.overlay import ABOVE, BELOW, overlay, standing_out
from penult.explain.page import explanation_page
from penult.explain.survey import ShownSample
from penult.explain.taking import take_pictures
from penult.explain.terms import terms_of
from penult.explain.thumbnails import coarser
from penult.explain.wording import remarks, signed, summary
from penult.features.features import Features
from penult.heads.comparison import PairedCounts
from penult.heads.judge import CROSS_FIT, EVALUATION, FITTED, Judge
from penult.heads.subspaces import top_k
from penult.network.head import Head
from penult.runs.analyze import Options, analyze_features
from penult.runs.reopen import Places, reopen_network
from penult.text import class_index
from small_run import NET, images_for


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images of three classes, analysed into `run`."""
    return images_for(NET, tmp_path, monkeypatch)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 40), st.booleans())
def test_terms_add_up_to_the_logit(seed: int, c: int, d: int, sparse: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(c, d, generator=generator)
    bias = torch.randn(c, generator=generator)
    z = torch.randn(d, generator=generator) * 10
    head: Head | SparseHead = Head("", weight, bias)
    if sparse:
        k = 1 + seed % d
        head = SparseHead.from_dense(weight, bias, top_k(weight.abs(), k))
        weight = head.dense_weight().detach()
    logits = weight.double() @ z.double() + bias.double()
    for of in range(c):
        terms = terms_of(head, z, of)
        assert terms.total == pytest.approx(float(logits[of]), abs=1e-9)
        assert len(terms.terms) == (k if sparse else d)
        sizes = [abs(term.contribution) for term in terms.terms]
        assert sizes == sorted(sizes, reverse=True)
        assert all(t.contribution == t.value * t.weight for t in terms.terms)
        between = terms_of(head, z, of, (of + 1) % c)
        gap = float(logits[of] - logits[(of + 1) % c])
        assert between.total == pytest.approx(gap, abs=1e-9)
        assert between.rest(1) == pytest.approx(
            gap - between.bias - between.terms[0].contribution, abs=1e-9
        )


def test_contributions_are_those_of_the_network(digits: Run) -> None:
    """The sum is the network's own logit, and each map's mean times the weight a contribution."""
    found = Explanation.of(digits, "eval:7", dense=True)
    model = reopen_network(digits)
    assert found.picture is not None
    pixels = torch.from_numpy(np.asarray(found.picture.convert("L")).copy()).float() / 127.5 - 1
    with torch.no_grad():
        logits = model(pixels[None, None])[0]
    assert found.terms.total == pytest.approx(float(logits[found.terms.of]), rel=1e-5)
    assert found.predicted == logits.argmax() == found.dense_predicted
    assert found.maps is not None
    assert found.maps_kind == "mean"
    for term, values in zip(found.terms.terms, found.maps, strict=False):
        assert float(values.mean()) * term.weight == pytest.approx(term.contribution, abs=1e-5)
    seen: list[torch.Tensor] = []
    with torch.no_grad(), model.last.register_forward_hook(lambda *call: seen.append(call[2])):  # type: ignore[union-attr]
        model(pixels[None, None])
    for term, values in zip(found.terms.terms, found.maps, strict=False):
        torch.testing.assert_close(values, seen[0][0, term.feature], atol=1e-5, rtol=1e-4)


def test_sparse_explanations_read_k_features(digits: Run) -> None:
    choice = choose_head(digits, k=5)
    found = Explanation.of(digits, "eval:3", k=5)
    assert found.head_name == f"sparse head ({choice.name})"
    assert len(found.terms.terms) == 5
    kept = choice.head.subspaces[found.predicted].tolist()
    assert {t.feature for t in found.terms.terms} == set(kept)
    against = Explanation.of(digits, "eval:3", k=5, against=str((found.predicted + 1) % 10))
    assert against.terms.total > 0
    assert "ahead of" in summary(against)
    document = against.document()
    total = sum(row["contribution"] for row in document["features"]) + document["bias"]
    assert total == pytest.approx(document["total"], abs=1e-12)
    assert json.loads(json.dumps(document)) == document
    assert document["reason"]["valid"]
    assert document["reason"]["predicted"] == found.predicted


def test_every_kind_of_image_gives_the_same_explanation(folder: Path) -> None:
    stored = Explanation.of("run", "b/04.png", class_="b")
    by_number = Explanation.of("run", "train:11", class_="b")
    from_file = Explanation.of("run", "data/b/04.png", class_="b")
    from_picture = Explanation.of("run", Image.open("data/b/04.png"), class_="b")
    for other in (by_number, from_file, from_picture):
        assert other.terms.of == stored.terms.of
        assert other.terms.total == pytest.approx(stored.terms.total, abs=1e-5)
    assert stored.label == by_number.label == 1
    assert from_file.label is None
    with pytest.raises(InputError, match="or a PIL image, found ndarray"):
        Explanation.of("run", np.zeros((12, 12, 3), np.uint8))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing.png",), "nothing.png is no file, and no image of the run"),
        (("b/05.png",), "did you mean"),
        (("eval:0",), "has no evaluation data: expected train:NUMBER"),
        (("train:30",), "samples are numbered from 0 to 29"),
        (("train:0", "--class", "x"), "no class is called 'x': there are a, b, c"),
        (("train:0", "--against", "3"), "classes are numbered from 0 to 2, found 3"),
        (("train:0", "--class", "a", "--against", "a"), "expected another class to compare with"),
        (("train:0", "-k", "4"), "holds no head of k = 4"),
        (("train:0", "--select", "luck"), "holds no heads 'luck'"),
        (("train:0", "--out", "x.jpg"), "x.jpg: expected a name that ends in .png, .svg or .pdf"),
        (("net.py",), "is damaged or no image that Pillow reads"),
        (("data",), "data is no file, and no image of the run"),
        (("x" * 300,), "is no file, and no image of the run"),
        (("train:" + "9" * 5000,), "is no file, and no image of the run"),
        (("train:0", "--class", "9" * 5000), "no class is called '999"),
    ],
)
def test_what_cannot_be_explained_is_said_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    capsys.readouterr()
    assert penult("explain", "run", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert said in captured.err


def test_the_command_prints_writes_a_picture_and_json(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert penult("explain", "run", "a/00.png") == 0
    page = capsys.readouterr().out
    assert "Picture: run/explained/a-00-curvature-k-" in page
    (picture,) = (folder / "run" / "explained").iterdir()
    with Image.open(picture) as drawn:
        assert drawn.width > 800
    for name in ("one.svg", "two.svg"):
        assert penult("explain", "run", "a/00.png", "--against", "b", "--out", name, "--json") == 0
        document = json.loads(capsys.readouterr().out)
        assert document["format"] == "penult-explanation/1"
        assert document["class"] != document["against"] == "b"
    svg = (folder / "one.svg").read_text(encoding="utf-8")
    assert svg == (folder / "two.svg").read_text(encoding="utf-8")
    assert "logit of" in svg
    assert len(list((folder / "run" / "explained").iterdir())) == 1
    shutil.rmtree(folder / "run" / "explained")
    (folder / "run" / "explained").write_text("in the way")
    assert penult("explain", "run", "a/00.png") == 0
    captured = capsys.readouterr()
    assert "guarantee" in captured.out
    assert "Picture" not in captured.out
    assert "no picture: run/explained/a-00-" in captured.err
    assert penult("explain", "run", "a/00.png", "--out", "net.py/a.png") == 2


def test_the_page_shows_what_speaks_for_and_against(tmp_path: Path) -> None:
    """Bars on two sides of one line; what is not listed is added up on each side apart."""
    weight = torch.zeros(2, 30)
    weight[1] = torch.linspace(-1, 2, 30)
    z = torch.rand(40, 30, generator=torch.Generator().manual_seed(0)) + 0.5
    run = analyze_features(
        Features.of(z, torch.arange(40) % 2, weight), None, tmp_path / "run", Options(fit=False)
    )
    found = Explanation.of(run, "train:3", dense=True, class_="1")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(explanation_page(found))
    page = console.export_text()
    terms = found.terms.terms
    bars = {line.split()[0]: line for line in page.splitlines() if "│" in line}
    places = {line.index("│") for line in bars.values()}
    assert len(bars) == 12
    assert len(places) == 1, "the bars begin at different places"
    (axis,) = places
    for term in terms[:12]:
        left, right = bars[str(term.feature)].split("│")
        assert ("━" in left) == (term.contribution < 0)
        assert ("━" in right) == (term.contribution > 0)
        assert len(left) == axis
    for side, sign in (("for", 1), ("against", -1)):
        added = [t.contribution for t in terms[12:] if sign * t.contribution > 0]
        assert added, "the test is to have terms of both signs that are not listed"
        total = f"{sum(added):+.4f}".replace("-", "−")
        assert re.search(rf"{len(added)} others {side} +{re.escape(total)}", page)


def test_a_zero_has_no_sign_and_a_small_number_keeps_it() -> None:
    assert signed("-0.000") == "0.000"
    assert signed("feature 3:  -0 × -0.5") == "feature 3:  0 × −0.5"
    assert signed("-0.0004") == "−0.0004"
    assert signed("-0.00e+00, -1e-05") == "−0.00e+00, −1e−05"
    assert signed("+0.000") == "+0.000"


def test_a_run_of_features_is_explained_without_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    z = torch.rand(60, 5, generator=torch.Generator().manual_seed(0))
    features = Features.of(
        z, torch.arange(60) % 3, torch.eye(3, 5), class_names=["$x_1$", "b", "c"]
    )
    run = analyze_features(features, None, tmp_path / "run")
    found = Explanation.of(run, "train:4")
    assert found.picture is None
    assert found.maps is None
    assert "made from features" in found.note
    assert penult("explain", str(run.folder), "train:4", "--class", "0", "--against", "1") == 0
    assert "no image" in capsys.readouterr().out
    assert penult("explain", str(run.folder), __file__) == 2
    assert "holds no network for" in capsys.readouterr().err


def test_the_notebook_form_holds_text_as_text(digits: Run) -> None:
    found = Explanation.of(digits, "eval:0")
    hostile = ["<script>alert(1)</script>" if c == found.predicted else str(c) for c in range(10)]
    changed = Explanation(**{**vars(found), "class_names": hostile, "image": '"><img src=x>'})
    html = changed._repr_html_()
    assert "<script>" not in html
    assert "<img src=x>" not in html
    assert html.count("data:image/png") == 1 + min(SHOWN, len(found.terms.terms))
    assert all(len(part) <= 80 for part in [changed.file_name()])
    assert "/" not in changed.file_name()


def test_classes_are_named_or_numbered() -> None:
    assert class_index("1", ["a", "1", "c"]) == 1
    assert class_index("2", ["a", "b", "c"]) == 2
    assert class_index(0, ["a", "b", "c"]) == 0
    assert class_index(np.int64(2), ["a", "b", "c"]) == 2  # type: ignore[arg-type]
    assert class_index(torch.tensor(2), ["a", "b", "c"]) == 2  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did you mean tabby"):
        class_index("taby", ["tabby", "dog"])


def test_the_overlay_is_warm_where_the_map_is_high_and_blue_where_it_is_low() -> None:
    grey = Image.new("RGB", (96, 96), (128, 128, 128))
    map = torch.zeros(4, 4)
    map[0, 3], map[3, 0] = 2.0, -2.0
    found = np.asarray(overlay(grey, map)).astype(int)
    assert np.abs(found[2, 93] - ABOVE).max() < 30
    assert np.abs(found[93, 2] - BELOW).max() < 30
    assert np.abs(found[50, 48] - 128).max() <= 1


def wishes_of(run: Run) -> list[Wish]:
    features = run.train()
    (block,) = features.blocks()
    return [
        Wish(
            ("train", i),
            ShownSample(i, block.ids[i], int(block.labels[i]), 0),
            {j: float(block.features[i, j]) for j in (1, 4)},
        )
        for i in range(0, 30, 3)
    ]


def test_the_gallery_has_maps_of_the_stored_values_and_is_found_again(folder: Path) -> None:
    run = Run.open("run")
    wishes = wishes_of(run)
    made = take_pictures(run, wishes)
    assert made.kind == "mean"
    assert made.count(THERE) == 10
    for wish in wishes:
        for j, value in wish.values.items():
            values = made.map(wish.key, j)
            assert values is not None
            assert float(values.mean()) == pytest.approx(value, abs=1e-5)
        assert made.map(wish.key, 0) is None
        picture = Image.open(io.BytesIO(made.pictures[wish.key].data))
        with Image.open(folder / "data" / wish.sample.id) as original:
            assert np.array_equal(np.asarray(picture), np.asarray(original))
    shutil.rmtree(folder / "data")
    again = take_pictures(run, wishes)
    assert again.pictures == made.pictures
    assert torch.equal(again.map(wishes[0].key, 1), made.map(wishes[0].key, 1))  # type: ignore[arg-type]
    other = take_pictures(run, wishes[1:])
    assert other.count(THERE) == 9, "pictures that the run has are taken again"
    assert other.kind == "mean"


def test_only_pictures_that_the_run_lacks_are_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report of an edit shows a few images more than the run's own."""
    run = Run.open("run")
    wishes = wishes_of(run)
    taken: list[int] = []
    few, more = wishes[:6], [*wishes[8:], *wishes[2:6], replace(wishes[0], side=5)]
    more[2] = replace(more[2], values={**more[2].values, 0: few[2].values[1]})
    options = PictureOptions(progress=lambda done, total: taken.append(total))
    take_pictures(run, few, options)
    monkeypatch.setattr("penult.explain.taking.TOLERANCE", 1e9)  # of the value made up above
    made = take_pictures(run, more, options)
    assert sorted(set(taken)) == [4, 6], "two new ones, one with another map, one of another size"
    assert [*made.pictures] == [wish.key for wish in more]
    alone = take_pictures(run, more, PictureOptions(overwrite=True))
    assert alone.pictures == made.pictures
    assert alone.mapped() == made.mapped()
    for key, j in alone.mapped():
        assert torch.equal(alone.map(key, j), made.map(key, j))  # type: ignore[arg-type]
    shutil.rmtree(folder / "data")
    assert take_pictures(run, few[2:]).count(THERE) == 4


def test_images_that_vanished_or_changed_are_told_apart(folder: Path) -> None:
    run = Run.open("run")
    wishes = wishes_of(run)
    names = [wish.sample.id for wish in wishes]
    (folder / "data" / names[0]).unlink()
    pixels = np.asarray(Image.open(folder / "data" / names[1]))
    Image.new("RGB", (12, 12), (9, 200, 9)).save(folder / "data" / names[1])
    Image.new("RGB", (5, 7)).save(folder / "data" / names[2])
    (folder / "data" / names[3]).write_bytes(b"no image")
    made = take_pictures(run, wishes)
    states = [made.pictures[wish.key].state for wish in wishes]
    assert states == [MISSING, CHANGED, CHANGED, MISSING, *[THERE] * 6]
    assert made.map(wishes[1].key, 1) is None
    assert made.map(wishes[4].key, 1) is not None
    # A second look finds what has come back.
    Image.fromarray(pixels).save(folder / "data" / names[1])
    (folder / "data" / names[0]).write_bytes((folder / "data" / names[5]).read_bytes())
    again = take_pictures(run, wishes)
    assert (again.count(MISSING), again.pictures[wishes[1].key].state) == (1, THERE)


def test_one_image_of_another_size_does_not_make_all_others_changed(folder: Path) -> None:
    """Whichever it is: the first ones tell what size the network takes."""
    run = Run.open("run")
    wishes = wishes_of(run)
    Image.new("RGB", (5, 7)).save(folder / "data" / wishes[0].sample.id)
    made = take_pictures(run, wishes)
    states = [made.pictures[wish.key].state for wish in wishes]
    assert states == [CHANGED, *[THERE] * 9]
    assert {key for key, _ in made.mapped()} == {wish.key for wish in wishes[1:]}


def test_pictures_that_are_not_whole_are_taken_again(folder: Path) -> None:
    run = Run.open("run")
    wishes = wishes_of(run)
    made = take_pictures(run, wishes)
    index = run.examples_folder / "index.json"
    good = index.read_text(encoding="utf-8")
    picture = next(run.examples_folder.glob("00000.*"))

    def retaken() -> bool:
        again = take_pictures(run, wishes)
        assert again.pictures == made.pictures
        assert again.mapped() == made.mapped()
        return index.read_text(encoding="utf-8") == good

    for text in ("", "[]", "{}", good[:-50], good.replace('"file"', '"fill"')):
        index.write_text(text, encoding="utf-8")
        assert retaken()
    for key, value in (
        ("maps", [[99, 1]] * len(made.mapped())),
        ("maps", [[]] * len(made.mapped())),
        ("images", {}),
        ("images", [7]),
    ):
        index.write_text(json.dumps({**json.loads(good), key: value}), encoding="utf-8")
        assert retaken()
    whole = picture.read_bytes()
    for data in (b"", b"no picture", whole[:-4]):
        picture.write_bytes(data)
        assert retaken()
        assert picture.read_bytes() == whole
    (run.examples_folder / "maps.safetensors").write_bytes(b"1")
    assert retaken()
    shutil.rmtree(run.examples_folder)
    run.examples_folder.write_text("a file")
    assert retaken()


def test_a_run_that_cannot_be_written_gives_pictures_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "run")

    monkeypatch.setattr("penult.explain.gallery.write_folder", refused)
    with pytest.warns(UserWarning, match="the pictures are not kept in the run: .*denied"):
        made = take_pictures(Run.open("run"), wishes_of(Run.open("run")))
    assert made.count(THERE) == 10
    assert made.mapped()


def test_images_that_the_network_cannot_take_are_the_users_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = NET.replace(".mean((2, 3))", ".view(len(x), 6, 144).mean(2)")
    folder = images_for(net, tmp_path, monkeypatch)
    Image.new("RGB", (20, 20)).save(folder / "large.png")
    Image.new("RGB", (20, 20)).save(folder / "data/a/00.png")
    capsys.readouterr()
    for image in ("large.png", "a/00.png"):
        assert penult("explain", "run", image) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "the network does not run on the example (float32 (1, 3, 20, 20))" in captured.err
        assert len(captured.err.strip().splitlines()) == 1


def test_maps_that_fail_leave_the_rest_of_the_explanation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise InputError("the gradient is NaN")

    run = Run.open("run")
    monkeypatch.setattr("penult.explain.maps.MeanMaps.__call__", failing)
    with pytest.warns(UserWarning, match="no heat maps: the gradient is NaN"):
        found = Explanation.of(run, "train:0")
    assert (found.maps, found.maps_kind) == (None, None)
    assert found.note == "There are no heat maps: the gradient is NaN."
    with pytest.warns(UserWarning, match="no more heat maps: the gradient is NaN"):
        made = take_pictures(run, wishes_of(run))
    assert made.count(THERE) == 10
    assert "Some are lacking: the gradient is NaN." in made.note


def test_the_networks_own_classes_are_no_labels(folder: Path) -> None:
    made = ("net.py:net", "data", "--weights", "random", "--labels", "predicted", "--out", "own")
    assert penult("analyze", *made) == 0
    found = Explanation.of("own", "train:0")
    assert found.label is None
    assert found.document()["label"] is None


def test_a_network_that_is_gone_leaves_pictures_without_maps(folder: Path) -> None:
    run = Run.open("run")
    (folder / "net.py").unlink()
    with pytest.warns(UserWarning, match="no heat maps"):
        made = take_pictures(run, wishes_of(run))
    assert made.count(THERE) == 10
    assert made.kind is None
    assert "net.py" in made.note
    with pytest.warns(UserWarning, match="no heat maps"):
        found = Explanation.of("run", "a/00.png")
    assert found.maps is None
    assert found.picture is not None


def test_an_explained_image_that_changed_is_refused(folder: Path) -> None:
    Image.new("RGB", (12, 12), (9, 200, 9)).save(folder / "data/a/00.png")
    with pytest.raises(InputError, match="no longer the image that was analysed"):
        Explanation.of("run", "a/00.png")
    (folder / "data/a/00.png").unlink()
    found = Explanation.of("run", "a/00.png")
    assert found.picture is None
    assert "cannot be opened where the run found it" in found.note


@pytest.mark.parametrize("returned", ["pixels, labels", "torch.from_numpy(pixels) / 255, labels"])
def test_arrays_that_a_function_returns_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, returned: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET.replace("Conv2d(3", "Conv2d(1").replace("0.5, 0.5, ", ""))
    shape = "(30, 1, 12, 12)" if "torch" in returned else "(30, 12, 12)"
    (tmp_path / "data.py").write_text(
        "import numpy as np, torch\n"
        "def images():\n"
        "    labels = np.arange(30) % 3\n"
        f"    pixels = np.random.default_rng(0).integers(0, 256, {shape}, dtype=np.uint8)\n"
        f"    return {returned}\n"
    )
    made = ("net.py:net", "data.py:images", "--weights", "random", "--out", "run")
    assert penult("analyze", *made) == 0
    run = Run.open("run")
    assert run.about["data"]["source"] == "data.py:images"
    assert take_pictures(run, wishes_of(run)).count(THERE) == 10
    found = Explanation.of(run, "7")
    assert found.label == 1
    assert found.maps_kind == "mean"


def test_images_may_have_moved(folder: Path) -> None:
    (folder / "data").rename(folder / "elsewhere")
    run = Run.open("run")
    assert take_pictures(run, wishes_of(run)).count(MISSING) == 10
    moved = take_pictures(run, wishes_of(run), PictureOptions(sources=Places(data="elsewhere")))
    assert moved.count(THERE) == 10
    options = PictureOptions(sources=Places(evaluation="x"), overwrite=True)
    with pytest.raises(InputError, match="run has no evaluation data that could be elsewhere: x"):
        take_pictures(run, wishes_of(run), options)


def test_networks_that_do_not_pool_by_a_mean_are_attributed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images_for(NET.replace(".mean((2, 3))", ".amax((2, 3))"), tmp_path, monkeypatch)
    found = Explanation.of("run", "a/00.png", dense=True)
    assert found.maps_kind == "attribution"
    assert found.maps is not None
    assert "ntegrated gradients" in found.note


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 16))
def test_coarser_maps_are_means_of_areas_and_keep_the_mean(h: int, w: int, most: int) -> None:
    maps = torch.rand(2, h, w, generator=torch.Generator().manual_seed(0)) - 0.3
    found = coarser(maps, most)
    rows, columns = min(h, most), min(w, most)
    assert found.shape == (2, rows, columns)
    torch.testing.assert_close(found.mean((1, 2)), maps.mean((1, 2)), atol=1e-5, rtol=1e-4)
    fine = maps.repeat_interleave(rows, 1).repeat_interleave(columns, 2)
    means = fine.view(2, rows, h, columns, w).mean((2, 4))
    torch.testing.assert_close(found, means, atol=1e-5, rtol=1e-4)


def test_without_captum_all_but_the_maps_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images_for(NET.replace(".mean((2, 3))", ".amax((2, 3))"), tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "captum", None)
    run = Run.open("run")
    with pytest.warns(UserWarning, match="no heat maps: captum is needed here"):
        found = Explanation.of(run, "a/00.png")
    assert found.picture is not None
    assert "pip install 'penult[attribution]'" in found.note
    with pytest.warns(UserWarning, match="no heat maps: captum is needed here"):
        made = take_pictures(run, wishes_of(run))
    assert (made.count(THERE), made.kind) == (10, None)


def test_the_choice_is_measured_on_the_evaluation_samples(digits: Run) -> None:
    choice = choose_head(digits)
    rows = digits.summary()["path"]
    assert choice.accuracy == next(r["accuracy"] for r in rows if r["k"] == choice.k)
    assert choice.loss == pytest.approx(digits.summary()["dense"]["accuracy"] - choice.accuracy)
    asked = choose_head(digits, k=2, select="frequency")
    assert (asked.k, asked.select, asked.refit) == (2, "frequency", "none")
    assert asked.accuracy == digits.summary()["influence"]["frequency"]["2"]["accuracy"]


@pytest.mark.parametrize(
    ("lost", "judge", "chosen", "said"),
    [
        ([500, 60, 25, 10], Judge(EVALUATION, 10_000), 3, "k = 3 is the smallest head that can be"),
        ([500, 60, 10, 49], Judge(EVALUATION, 10_000), 3, "measured loss is below 0.5 points, 0.1"),
        ([500, 300, 200, 250], Judge(EVALUATION, 10_000), 3, "k = 3 is the most accurate, 2.00 po"),
        ([500, 60, 25, 10], Judge(CROSS_FIT, 10_000, 5), 3, "Nothing is promised for new samples"),
        ([500, 60, 25, 10], Judge(FITTED, 10_000), 3, "No size can be chosen"),
    ],
)
def test_the_head_that_is_shown_can_be_vouched_for_or_says_that_it_cannot(
    digits: Run,
    monkeypatch: pytest.MonkeyPatch,
    lost: list[int],
    judge: Judge,
    chosen: int,
    said: str,
) -> None:
    summary = digits.summary()
    found = [row for row in summary["path"] if row["k"] in (1, 2, 3, 5)]
    rows = [
        {**row, "counts": asdict(PairedCounts(10_000, 10_000, n, 0, 10_000 - n))}
        for row, n in zip(found, lost, strict=True)
    ]
    changed = {**summary, "path": rows, "judge": judge.document()}
    monkeypatch.setattr(Run, "summary", lambda _: changed)
    choice = choose_head(digits)
    assert choice.k == chosen
    assert said in choice.why


def test_a_head_with_all_features_is_not_chosen(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 8, generator=generator)
    weight = torch.randn(20, 8, generator=generator)  # every class needs every feature
    labels = (z @ weight.T).argmax(1)
    features = Features.of(z[:2000], labels[:2000], weight)
    held_out = Features.of(z[2000:], labels[2000:], weight)
    run = analyze_features(features, held_out, tmp_path / "run")
    choice = choose_head(run)
    assert choice.k == 5
    assert "all heads lose more than 0.5 points; k = 5 is the most accurate" in choice.why
    whole = choose_head(run, k=8)
    assert (whole.loss, whole.counts.agreement) == (0, 1), "it is the dense head"


def test_remarks_say_where_the_heads_differ_and_what_is_unlike_the_data(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    z = torch.rand(400, 8, generator=generator)
    weight = torch.randn(3, 8, generator=generator)
    features = Features.of(z, (z @ weight.T).argmax(1), weight, class_names=["a", "b", "c"])
    held_out = Features.of(torch.cat([z[:50], z[:1] * 30]), torch.zeros(51).long(), weight)
    run = analyze_features(features, held_out, tmp_path / "run")
    plain = Explanation.of(run, "eval:0", dense=True)
    assert remarks(plain) == []
    assert plain.probability() == plain.probability(dense=True)
    far = Explanation.of(run, "eval:50", dense=True)
    assert "This image is unlike the analysed images: its feature" in remarks(far)[0]
    ratios = [(o.value - o.high) / (o.high - o.low) for o in far.outside]
    assert ratios == sorted(ratios, reverse=True)
    assert {o.feature for o in far.outside} == set((z[0] * 30 > 1.2).nonzero()[:, 0].tolist())
    dense = features.require_head()(z[:50]).argmax(1)
    sparse = run.head("random", 1)(z[:50]).argmax(1)
    differs = int((dense != sparse).nonzero()[0, 0])
    told = Explanation.of(run, f"eval:{differs}", k=1, select="random")
    names = ["a", "b", "c"]
    assert f"The network itself says {names[dense[differs]]};" in remarks(told)[0]
    assert "--dense" in remarks(told)[0]
    assert told.document()["dense_predicted"] == names[dense[differs]]


def test_pictures_are_not_given_up_for_images_that_are_gone(folder: Path) -> None:
    run = Run.open("run")
    wishes = wishes_of(run)
    made = take_pictures(run, wishes)
    shutil.rmtree(folder / "data")
    with pytest.warns(
        UserWarning, match="10 images are gone: the pictures that the run has are kept"
    ):
        again = take_pictures(run, wishes, PictureOptions(overwrite=True))
    assert again.pictures == made.pictures
    assert take_pictures(run, wishes).pictures == made.pictures


@given(st.integers(0, 10_000), st.sampled_from([1, 4, 7]), st.booleans())
def test_what_stands_out_is_stronger_than_the_mean(seed: int, side: int, signed: bool) -> None:
    map = torch.rand(side, side, generator=torch.Generator().manual_seed(seed)) * 6
    map = (map - 3) * 2 if signed else map.clamp(max=4)
    top = float(map.abs().max())
    drawn = standing_out(map, top)
    mean = map.abs().mean()
    assert torch.equal(drawn == 0, (map.abs() <= mean) | (map == 0))
    assert bool((drawn.sign() * map.sign() >= 0).all())
    order = map.abs().flatten().argsort()
    assert bool((drawn.abs().flatten()[order].diff() >= 0).all())
    assert float(drawn.abs().max()) <= 1


def test_a_map_that_is_the_same_everywhere_has_nothing_that_stands_out() -> None:
    assert not standing_out(torch.full((7, 7), 6.0), 6.0).any()
    assert not standing_out(torch.zeros(7, 7), 0.0).any()
    capped = torch.full((7, 7), 6.0)
    capped[:2] = 1.0
    drawn = standing_out(capped, 6.0)
    assert not drawn[:2].any()
    assert bool((drawn[2:] == 1).all())


def test_overlays_have_one_scale_and_the_sign_of_the_contribution(digits: Run) -> None:
    found = Explanation.of(digits, "eval:3", dense=True)
    assert found.maps is not None
    drawn = [np.asarray(image).astype(int) for image in found.overlays()]
    adds = [
        float((m * t.weight).sum()) for m, t in zip(found.maps, found.terms.terms, strict=False)
    ]
    for pixels, add in zip(drawn, adds, strict=True):
        warm = float((pixels[:, :, 0] - pixels[:, :, 2]).mean())
        assert warm * add > 0, "warm where a feature speaks for the class, blue where against"


def test_a_mistake_is_explained_against_its_label_and_two_classes_against_each_other(
    tmp_path: Path,
) -> None:
    generator = torch.Generator().manual_seed(4)
    z = torch.rand(60, 8, generator=generator)
    for n_classes in (2, 4):
        weight = torch.randn(n_classes, 8, generator=generator)
        called = (z @ weight.T).argmax(1).tolist()
        labels = [*called]
        labels[7] = (called[7] + 1) % n_classes
        features = Features.of(z, torch.tensor(labels), weight)
        run = analyze_features(features, None, tmp_path / f"run{n_classes}")
        right, wrong = (Explanation.of(run, f"train:{i}", dense=True) for i in (0, 7))
        assert (wrong.terms.of, wrong.terms.against) == (called[7], labels[7])
        assert wrong.terms.total > 0
        rival = 1 - called[0] if n_classes == 2 else None
        assert (right.terms.of, right.terms.against) == (called[0], rival)
        named = Explanation.of(run, "train:7", dense=True, class_=labels[7])
        assert named.terms.against == (called[7] if n_classes == 2 else None)
        assert repr(right).startswith("<Explanation of 0 by the network's own (dense) head: ")
        assert right.file_name().startswith(f"0-dense-{called[0]}")

"""The report page in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from browsing import Open
from penult import Run
from penult.features.features import Features
from penult.report.page import render
from penult.report.report import Report
from penult.runs.analyze import Options, analyze_features
from report_parts import NAMES, Made, map_of, picture

VIEWS = [
    *("summary", "guide", "classes", "class/3", "mistakes", "mistake/0"),
    *("features", "feature/12", "feature/11", "feature/21", "features/left", "mistakes/3"),
]
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = colour => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = colour => rgb(colour).map(linear)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0.05);
  const ground = node => {
    const colour = getComputedStyle(node).backgroundColor;
    return /, 0\\)|\\/ 0/.test(colour) ? ground(node.parentElement) : colour;
  };
  const poor = [];
  for (const node of document.querySelectorAll("main *, header *")) {
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    if (!own || !node.offsetParent || node.closest(".off, svg")) continue;
    const [dark, bright] = [light(getComputedStyle(node).color), light(ground(node))].sort();
    if (bright / dark < 4.5) poor.push([node.className, node.textContent, bright / dark]);
  }
  return poor;
}"""
HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(2)>",
    "</title></style></script><b>bold</b>",
    "a/b\\c {{ 7*7 }} {% raw %} & &amp; 100%",
    "bell\x07 escape\x1b[31m nul\x00 line\u2028end\r\n\ttab",
    "كلب \u202eright to left",
    "x" * 300,
    "half \ud83d a pair",
    "",
    "-->",
)


@pytest.fixture(scope="module")
def html(pictured: Made) -> str:
    return render(*pictured())


@pytest.fixture(scope="module")
def plain(noisy: Made) -> str:
    return render(*noisy())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_every_view_fits_and_shows_its_images(
    visit: Open, html: str, width: int, scheme: str
) -> None:
    seen = visit(html, width=width, color_scheme=scheme)
    for view in seen.tour(VIEWS):
        assert view["heading"]
        assert view["fits"], view["route"]
        assert view["images"], view["route"]
    paper = seen.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    dark = sum(int(n) for n in re.findall(r"\d+", paper)[:3]) < 200
    assert dark == (scheme == "dark")


@pytest.mark.slow
def test_every_internal_link_leads_to_a_view_of_its_own(visit: Open, pictured: Made) -> None:
    document, *rest = pictured()
    seen = visit(render(document, *rest))
    routes: dict[str, str] = {}
    waiting = {"#summary"}
    while waiting:
        for view in seen.tour([href.removeprefix("#") for href in waiting]):
            routes["#" + view["route"]] = view["heading"]
            waiting |= set(view["links"])
        waiting -= set(routes)
        assert all(href.startswith("#") for href in waiting)
    n_mistakes = len(document["mistakes"]["rows"])
    assert {f"#feature/{j}" for j in range(64)} <= set(routes)
    assert {f"#class/{c}" for c in range(10)} <= set(routes)
    assert {f"#mistake/{i}" for i in range(n_mistakes)} <= set(routes)
    assert not [href for href, heading in routes.items() if not heading or "No such" in heading]
    assert routes["#class/3"] == "cat"
    assert routes["#feature/12"] == "12"


@pytest.mark.parametrize(
    ("route", "heading"),
    [
        ("class/3", "cat"),
        ("feature/12", "12"),
        ("guide", "How to read this page"),
        ("class/99", "No such class"),
        ("class/", "No such class"),
        ("class/cat", "cat"),
        ("class/%E0%A4%A", "No such class"),
        ("mistakes/3", "Mistakes"),
        ("mistakes/cat", "Mistakes"),
        ("mistakes/none", "No such class"),
        ("feature/x", "No such feature"),
        ("mistake/999", "No such mistake"),
        ("nothing", "No such view"),
        ("%E0%A4%A", "No such view"),
    ],
)
def test_a_deep_link_opens_its_view(visit: Open, html: str, route: str, heading: str) -> None:
    assert visit(html, route).heading() == heading


def test_start_names_the_view_that_opens_first(visit: Open, pictured: Made) -> None:
    document, *rest = pictured()
    seen = visit(render({**document, "start": "class/3"}, *rest))
    assert seen.heading() == "cat"
    seen.page.click("nav >> text=Summary")
    assert seen.heading() == document["title"]


def test_back_and_forward(visit: Open, html: str) -> None:
    seen = visit(html)
    seen.page.click("nav >> text=Classes")
    seen.page.click("td.who >> text=dog >> nth=0")
    assert seen.heading() == "dog"
    seen.page.go_back()
    seen.page.locator("h1:visible >> text=Classes").wait_for()
    seen.page.go_forward()
    seen.page.locator("h1:visible >> text=dog").wait_for()


def test_the_summary_is_complete_without_scripts(visit: Open, noisy: Made) -> None:
    document, *rest = noisy()
    document["about"]["warnings"] = ["The labels look permuted: <b>check</b> their order."]
    seen = visit(render(document, *rest), java_script_enabled=False)
    text = seen.page.inner_text("#summary-view")
    about, head, mistakes = document["about"], document["head"], document["mistakes"]
    for part in (
        *document["conclusion"],
        *about["warnings"],
        f"{100 * about['dense_accuracy']:.2f}%",
        f"{100 * head['accuracy']:.2f}%",
        f"{100 * about['commonest']['accuracy']:.2f}%",
        f"right by saying {NAMES[about['commonest']['class']]} every time",
        "with 95 % confidence",
        head["why"],
        f"{mistakes['n_both']:,} of both the network and the sparse head",
    ):
        assert part in text
    assert "surely" not in text
    assert seen.page.inner_text("#guide-view").startswith("How to read this page")


def test_the_page_of_the_network_alone_names_no_sparse_head(visit: Open, digits: Run) -> None:
    data = Report.of(digits, dense=True).data
    assert data.document["head"] is None
    assert all(row["kept"] == [] for row in data.document["classes"])
    html = render(data.document, data.class_details, data.feature_details, data.images)
    routes = [route for route in VIEWS if route not in ("guide", "features/left")]
    for width in (360, 1440):
        for view in visit(html, width=width).tour(routes):
            assert "sparse" not in view["text"].lower().replace("sparse heads, in which", ""), view
            assert view["fits"], view["route"]
    seen = visit(html, "class/3")
    assert seen.page.locator(".trait").count() == 8


def test_the_summary_and_the_guide_say_how_far_the_heads_agree(visit: Open, html: str) -> None:
    seen = visit(html)
    numbers = "\n".join(seen.page.locator("#summary-view .numbers > div").all_inner_texts())
    assert "Agreement" in numbers
    assert "images on which both say the same" in numbers
    seen.go("guide")
    for word in ("Features chosen by curvature", "Weights softmax", "Between classes"):
        assert word in seen.text("#guide-view")
    assert "as far as the two agree" in seen.text("#guide-view")


@pytest.mark.parametrize("n_losers", [0, 2, 9, 10])
def test_only_classes_that_lose_are_said_to_lose(
    visit: Open, pictured: Made, n_losers: int
) -> None:
    document, *rest = pictured()
    for c, row in enumerate(document["classes"]):
        row.update(dense=0.9, sparse=0.88 if c < n_losers else 0.9, n_eval=100)
    seen = visit(render(document, *rest), width=390)
    section = seen.page.locator("section", has=seen.page.locator("#why-title"))
    text = section.inner_text()
    assert ("The classes it costs most" in text) == (n_losers > 0)
    assert ("No class loses by it" in text) == (n_losers == 0)
    assert section.locator(".dumbbell:not(.axis)").count() == min(n_losers, 8)
    assert ("The other 8 classes gain or stay the same." in text) == (n_losers == 2)
    assert ("gain" in text) == (n_losers == 2)
    whole = "key => key.scrollWidth <= key.clientWidth"
    assert all(section.locator(".key").nth(i).evaluate(whole) for i in range(n_losers > 0))


def test_the_dots_of_the_class_table_stand_on_one_axis(visit: Open, pictured: Made) -> None:
    document, *rest = pictured()
    for c, row in enumerate(document["classes"]):
        row.update(dense=0.9, sparse=0.9 - (0.0, 0.001, 0.12, -0.05)[c % 4])
    seen = visit(render(document, *rest), "classes")
    tracks = seen.page.locator(".listing .track")
    places = tracks.evaluate_all("all => all.map(track => track.getBoundingClientRect().x)")
    assert len(places) == 10
    assert max(places) - min(places) < 0.5


def test_on_a_phone_the_name_of_the_class_stays_while_the_table_scrolls(
    visit: Open, html: str
) -> None:
    seen = visit(html, "classes", width=390)
    name = seen.page.locator(".listing tbody td.who").first
    seen.page.locator(".scroll:visible").evaluate("box => box.scrollLeft = 400")
    left = "cell => cell.getBoundingClientRect().x"
    assert 0 <= name.evaluate(left) < 30
    assert name.locator("xpath=preceding-sibling::td").first.evaluate(left) < -200


def test_the_class_page_says_what_the_document_says(visit: Open, pictured: Made) -> None:
    document, classes, features, images = pictured()
    seen = visit(render(document, classes, features, images), "class/2")
    traits = seen.page.locator(".trait")
    assert traits.count() == len(classes[2]["features"]) >= 8
    kept = 0
    for place, trait in enumerate(classes[2]["features"]):
        text = traits.nth(place).inner_text()
        assert f"Feature {trait['feature']}" in text
        assert "% of the network's evidence" in text
        assert ("kept by the sparse head" in text) == trait["kept"]
        kept += trait["kept"]
    assert kept == document["head"]["k"] == 5
    shots = traits.nth(0).locator(".shot")
    own = classes[2]["features"][0]["own"]
    assert shots.count() == len(own) + len(classes[2]["features"][0]["others"])
    alt = f"{images[own[0][0]]['id']}, bird"
    assert shots.nth(0).locator("img").get_attribute("alt") == alt


def test_a_share_has_the_colour_of_its_influence_and_absence_is_named(
    visit: Open, pictured: Made
) -> None:
    document, classes, *rest = pictured()
    signs = [(1.0, 2.0), (-1.0, 2.0), (1.0, -2.0), (-1.0, -2.0), (-1.0, None)]
    for trait, (weight, influence) in zip(classes[2]["features"], signs, strict=False):
        trait.update(weight=weight, influence=influence)
    seen = visit(render(document, classes, *rest), "class/2")
    bars = seen.page.locator(".share + .track-bar")
    kinds = bars.evaluate_all("bars => bars.map(bar => bar.classList[1])")
    assert kinds[:5] == ["pos", "pos", "neg", "neg", "neg"]
    texts = seen.page.locator(".trait-facts").all_inner_texts()
    named = ["its absence speaks for this class" in text for text in texts]
    assert named[:5] == [False, True, False, False, False]


def test_a_card_shows_positive_weights_first_and_says_what_it_hides(
    visit: Open, pictured: Made
) -> None:
    document, classes, *rest = pictured()
    traits = classes[2]["features"] = classes[2]["features"][:6]
    for trait, weight in zip(traits, (-1, 1, 1, 1, -1, -1), strict=True):
        trait.update(weight=float(weight), influence=1.0)
    seen = visit(render(document, classes, *rest))
    card = seen.page.locator(".card").nth(2)
    card.locator(".frame").first.wait_for()
    shown = [str(traits[place]["feature"]) for place in (1, 2, 3)]
    last = f"\u2212{traits[0]['feature']} +2"
    assert card.locator("small").all_inner_texts() == [*shown, last]
    assert card.locator("small .neg").get_attribute("title") == "its absence speaks for this class"


def test_contributions_add_up_to_the_gap(visit: Open, noisy: Made) -> None:
    document, *rest = noisy()
    seen = visit(render(document, *rest), "mistake/1")
    for place, reason in enumerate(document["mistakes"]["rows"][1]["reasons"]):
        panel = seen.page.locator(".reason").nth(place)
        texts = panel.locator(".line .n").all_inner_texts()
        values = [float(text.replace("\u2212", "-")) for text in texts]
        assert sum(values[:-1]) == pytest.approx(values[-1], abs=0.05)
        assert values[-1] == pytest.approx(reason["gap"], abs=0.006)


def test_warnings_of_a_feature_are_sentences(visit: Open, plain: str) -> None:
    seen = visit(plain, "feature/11")
    assert "same value on all images" in seen.text(".warnings")
    seen.go("feature/30")
    assert "% of its variance lies between them" in seen.text(".warnings")
    seen.go("feature/20")
    assert "It duplicates feature 21: their correlation is 1.000" in seen.text(".warnings")
    seen.go("feature/40")
    assert "decide" in seen.text(".warnings")
    assert "the sparse head leaves it out" in seen.text(".warnings")
    assert "The sparse head keeps it for no class." in seen.text("#other-view")
    seen.go("feature/3")
    assert seen.page.locator(".warnings:visible").count() == 0


def test_a_strong_feature_that_the_sparse_head_leaves_out_is_seen_everywhere(
    visit: Open, noisy: Made
) -> None:
    """Feature 40 marks class 0 and is read by no class of the sparse head."""
    document, classes, features, images = noisy()
    row = document["features"][40]
    assert (row["readers"], row["deciding"] > 0) == (0, True)
    assert 40 in document["classes"][0]["features"]
    assert 40 not in document["classes"][0]["kept"]
    assert features[40]["network"][0]["class"] == 0
    seen = visit(render(document, classes, features, images))
    left = seen.page.locator("li", has_text="that the sparse head leaves out")
    assert left.count() == 1
    seen.go("class/0")
    assert "Feature 40" in seen.text("#other-view")
    seen.go("features/left")
    assert "40" in seen.page.locator("#other-view tbody td.first").all_inner_texts()


def test_tables_sort_and_filter(visit: Open, noisy: Made) -> None:
    document, *rest = noisy()
    for c, row in enumerate(document["classes"]):
        row.update(sparse=(37 * c % 10) / 10, n_samples=100 + 7 * c % 10)
    seen = visit(render(document, *rest), "classes")

    def names() -> list[str]:
        return seen.page.locator("#other-view tbody td.who:nth-child(2)").all_inner_texts()

    assert names() == [row["name"] for row in document["classes"]]
    for column in ("Sparse head", "Samples", "Class"):
        key = {"Sparse head": "sparse", "Samples": "n_samples", "Class": "name"}[column]
        ordered = [row["name"] for row in sorted(document["classes"], key=lambda row: row[key])]
        button = seen.page.locator(f"th button >> text={column}").first
        button.click()
        descends = column == "Samples"
        assert names() == (ordered[::-1] if descends else ordered)
        head = seen.page.locator("#other-view th", has_text=column).first
        assert head.get_attribute("aria-sort") == ("descending" if descends else "ascending")
        button.click()
        assert names() == (ordered if descends else ordered[::-1])
    seen.page.fill(".filter input", "TRU")
    assert names() == ["truck"]
    assert "1 of 10" in seen.text(".filter")
    seen.page.fill(".filter input", "no such")
    assert "Nothing matches." in seen.text("#other-view")
    seen.go("features/twins")
    assert seen.page.locator("#other-view tbody tr").count() == 2
    seen.page.click("button:text-is('All')")
    assert seen.page.locator("#other-view tbody tr").count() == 48


def test_classes_with_images_come_first(visit: Open, noisy: Made) -> None:
    document, *rest = noisy()
    for c in (0, 1, 4):
        document["classes"][c].update(n_samples=0, n_eval=0)
    seen = visit(render(document, *rest), "classes")
    names = seen.page.locator("#other-view tbody td.who:nth-child(2)")
    filled = [name for c, name in enumerate(NAMES) if c not in (0, 1, 4)]
    assert names.all_inner_texts() == filled
    seen.page.click("button:text-is('All')")
    assert names.all_inner_texts() == [*filled, "airplane", "automobile", "deer"]
    seen.go("class/2")
    assert seen.page.locator(".pager a[rel=prev]").count() == 0
    seen.page.keyboard.press("ArrowRight")
    seen.page.keyboard.press("ArrowRight")
    assert seen.heading() == "dog"
    seen.page.fill("#search", "a")
    assert seen.text("#found bdi") == "airplane"
    seen.go("summary")
    rows = seen.page.locator(".matrix .row-name title").all_text_contents()
    assert rows == filled


def test_mistakes_filter_by_kind_and_class(visit: Open, noisy: Made) -> None:
    document, *rest = noisy()
    mistakes = document["mistakes"]
    rows = mistakes["rows"]
    seen = visit(render(document, *rest), "mistakes")
    assert seen.page.locator(".case").count() == min(len(rows), 120)
    text = seen.text("#other-view .heading p")
    both = sum(row["kind"] == "both" for row in rows)
    assert f"the surest {both} of {mistakes['n_both']:,} that both the network and" in text
    kind = rows[-1]["kind"]
    seen.page.select_option("select >> nth=0", kind)
    of_kind = [row for row in rows if row["kind"] == kind]
    assert seen.page.locator(".case").count() == min(len(of_kind), 120)
    label = str(of_kind[0]["label"])
    seen.page.get_by_label("Label").select_option(label)
    fit = [row for row in of_kind if str(row["label"]) == label]
    assert seen.page.locator(".case").count() == len(fit) > 0
    assert seen.page.url.endswith(f"#mistakes/{label}")
    seen.page.click(".case >> nth=0")
    seen.page.go_back()
    seen.page.locator("h1:visible >> text=Mistakes").wait_for()
    assert seen.page.locator(".case").count() == len(fit)
    seen.page.click("nav >> text=Mistakes")
    assert seen.page.locator(".case").count() == min(len(rows), 120)


def test_the_mistakes_of_a_class_have_an_address(visit: Open, noisy: Made) -> None:
    document, *rest = noisy()
    rows = document["mistakes"]["rows"]
    label = rows[0]["label"]
    seen = visit(render(document, *rest), f"class/{label}")
    seen.page.click("text=Its mistakes")
    assert seen.page.url.endswith(f"#mistakes/{label}")
    assert seen.page.get_by_label("Label").input_value() == str(label)
    labels = seen.page.locator(".case .said bdi:first-child").all_inner_texts()
    assert labels == [NAMES[label]] * sum(row["label"] == label for row in rows) != []
    document["mistakes"]["rows"] = [row for row in rows if row["label"] != label]
    seen = visit(render(document, *rest), f"mistakes/{label}")
    assert "No mistake of this class is shown" in seen.text("#other-view")
    seen.go(f"class/{label}")
    assert seen.page.locator("text=Its mistakes").count() == 0


def test_the_rest_of_a_list_is_counted_on_its_button(visit: Open, noisy: Made) -> None:
    document, *rest = noisy()
    rows = document["mistakes"]["rows"]
    document["mistakes"]["rows"] = (rows * 4)[:150]
    seen = visit(render(document, *rest), "mistakes", width=400)
    assert seen.text(".more-rows") == "Show 30 more"
    seen.page.dispatch_event(".more-rows", "click")
    assert seen.page.locator(".case").count() == 150
    assert seen.page.locator(".more-rows").is_hidden()


def test_an_address_may_name_a_class_as_people_do(visit: Open, noisy: Made) -> None:
    names = ("7", "99", "a/b c", "snø & fog%", "undefined", "x", "y", "z", "10", "twelve")
    document, *rest = noisy()
    for row, name in zip(document["classes"], names, strict=True):
        row["name"] = name
    seen = visit(render(document, *rest))
    for address, heading in {
        "class/7": "z",
        "class/99": "99",
        "class/a/b c": "a/b c",
        "class/a%2Fb%20c": "a/b c",
        "class/sn%C3%B8%20%26%20fog%25": "snø & fog%",
        "class/twelve": "twelve",
        "mistakes": "Mistakes",
    }.items():
        seen.page.evaluate("route => { location.hash = route; }", address)
        seen.page.locator("h1:visible", has_text=heading).wait_for()
        assert seen.heading() == heading
    assert seen.page.get_by_label("Label").input_value() == ""


def test_confusions_say_what_the_bars_compare_and_lead_to_the_mistakes(
    visit: Open, noisy: Made
) -> None:
    document, classes, *rest = noisy()
    shown = {row["label"] for row in document["mistakes"]["rows"]}
    c, d = sorted(shown)[:2]
    rival = classes[c]["confusions"][0]
    rival.update({"class": d, "to": [53, 60], "from": [71, 0]})
    rival["misled"] = [{"feature": 12, "moves": -2.5}, {"feature": 7, "moves": 0.5}]
    seen = visit(render(document, classes, *rest), f"class/{c}")
    panel = seen.page.locator(".rival").first
    captions = panel.locator("h4").all_inner_texts()
    assert captions == [
        f"What separates the average {NAMES[c]} from the average {NAMES[d]}",
        f"In the 53 that the network takes for {NAMES[d]}: what moved them there",
    ]
    misled = panel.locator(".ledger").nth(1)
    assert misled.locator("a").all_inner_texts() == ["12", "7"]
    assert misled.locator(".n").all_inner_texts() == ["\u22122.50", "+0.500"]
    kinds = misled.locator(".diverging i").evaluate_all("bars => bars.map(bar => bar.className)")
    assert kinds == ["neg", "pos"]
    links = panel.locator("td a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert links == [f"#mistakes/{c}", f"#mistakes/{c}", f"#mistakes/{d}"]
    rival["misled"], rival["to"] = [], [0, 0]
    seen = visit(render(document, classes, *rest), f"class/{c}")
    assert seen.page.locator(".rival").first.locator("h4").count() == 1


def test_of_two_classes_the_difference_is_shown(visit: Open, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(200, 6, generator=generator)
    z[::2, 0] += 1
    weight, bias = torch.randn(2, 6, generator=generator), torch.tensor([0.5, -0.25])
    features = Features.of(z, torch.arange(200) % 2, weight, bias, class_names=["odd", "even"])
    run = analyze_features(features, None, tmp_path / "run", Options(fit=False))
    report = Report.of(run, k=2, select="magnitude")
    first, second = report.data.class_details
    union = set(run.head("magnitude", 2).subspaces.indices.tolist())
    for row in first["features"]:
        j = row["feature"]
        assert row["weight"] == pytest.approx(float(weight[0, j] - weight[1, j]))
        assert row["kept"] == (j in union)
        (other,) = (r for r in second["features"] if r["feature"] == j)
        assert other["weight"] == -row["weight"]
        assert other["influence"] == pytest.approx(row["influence"])
    assert first["bias"] == pytest.approx(0.75)
    (view,) = visit(report.html()).tour(["class/0"])
    assert "what stands here is odd less even" in view["text"]


def test_search_by_keyboard(visit: Open, html: str) -> None:
    seen = visit(html)
    press = seen.page.keyboard.press
    press("/")
    seen.page.keyboard.type("o")
    assert seen.page.get_attribute("#search", "aria-expanded") == "true"
    names = seen.page.locator("#found [role=option] bdi").all_inner_texts()
    assert names == ["automobile", "dog", "frog", "horse"]
    press("ArrowDown")
    chosen = seen.page.get_attribute("#search", "aria-activedescendant")
    assert seen.page.inner_text(f"#{chosen} bdi") == "dog"
    press("Enter")
    assert seen.heading() == "dog"
    press("/")
    seen.page.keyboard.type("12")
    press("Enter")
    assert seen.heading() == "12"
    press("/")
    seen.page.keyboard.type("zzz")
    assert seen.text("#found") == "Nothing found"
    press("Escape")
    assert seen.page.locator("#found").is_hidden()
    assert seen.heading() == "12"


def test_keys(visit: Open, html: str) -> None:
    seen = visit(html, "class/3")
    press = seen.page.keyboard.press
    for key, heading in (
        ("ArrowRight", "deer"),
        ("j", "dog"),
        ("ArrowLeft", "deer"),
        ("k", "cat"),
    ):
        press(key)
        assert seen.heading() == heading
    assert seen.page.locator(".trait canvas.map >> nth=0").is_visible()
    press("h")
    assert seen.page.locator(".trait canvas.map >> nth=0").is_hidden()
    assert seen.page.get_attribute("#maps", "aria-pressed") == "false"
    press("h")
    assert seen.page.locator(".trait canvas.map >> nth=0").is_visible()
    press("?")
    assert "previous and next class" in seen.text("dialog")
    press("Escape")
    seen.page.locator("dialog").wait_for(state="detached")
    seen.go("class/0")
    press("ArrowLeft")
    assert seen.heading() == "airplane"


def test_an_image_opens_large_and_the_arrows_go_along_the_strip(
    visit: Open, pictured: Made
) -> None:
    document, classes, features, images = pictured()
    shots = classes[3]["features"][0]["own"]
    first, second = (images[shot[0]] for shot in shots[:2])
    first["predicted"] = 7
    seen = visit(render(document, classes, features, images), "class/3")
    seen.page.click(".shot button >> nth=0")
    text = seen.text("dialog")
    assert first["id"] in text
    assert "Label\ncat" in text
    assert "The network says\nhorse" in text
    seen.page.keyboard.press("ArrowRight")
    assert second["id"] in seen.text("dialog")
    assert seen.heading() == "cat"
    seen.page.keyboard.press("Escape")
    seen.page.locator("dialog").wait_for(state="detached")


def test_what_the_viewer_calls_the_networks_class_is_the_networks(
    digits: Run, report: Report
) -> None:
    evaluated = {"train": digits.train(), "eval": digits.evaluation()}
    head = digits.train().require_head()
    said: dict[str, int] = {}
    for features in evaluated.values():
        for block in features.blocks():
            said.update(zip(block.ids, block.dense_classes(head).tolist(), strict=True))
    for image in report.data.images:
        assert image["predicted"] == said[image["id"]]


def test_the_theme_is_kept(visit: Open, html: str) -> None:
    seen = visit(html, color_scheme="light")
    theme = "document.documentElement.dataset.theme"
    seen.page.click("#theme")
    assert seen.page.evaluate(theme) == "dark"
    seen.page.reload()
    assert seen.page.evaluate(theme) == "dark"


@pytest.mark.slow
def test_text_stands_out(visit: Open, html: str) -> None:
    """Contrast of text, links and notes with their ground, light and dark: at least 4.5."""
    for scheme in ("light", "dark"):
        seen = visit(html, color_scheme=scheme)
        for route in VIEWS:
            seen.go(route)
            assert seen.page.evaluate(CONTRAST) == [], (scheme, route)


def test_print_has_the_view_and_no_navigation(visit: Open, html: str) -> None:
    seen = visit(html, "class/3", color_scheme="dark")
    seen.page.emulate_media(media="print")
    assert seen.page.locator(".bar").is_hidden()
    assert seen.page.locator(".pager").is_hidden()
    assert seen.page.locator(".trait >> nth=4").is_visible()
    ink = seen.page.evaluate("getComputedStyle(document.documentElement).color")
    assert sum(int(n) for n in re.findall(r"\d+", ink)[:3]) < 200
    assert seen.page.pdf().startswith(b"%PDF")


@pytest.mark.slow
def test_the_frame_of_a_notebook(visit: Open, html: str) -> None:
    frame = "<!doctype html><body><iframe style='width:1200px;height:800px'></iframe>"
    for sandbox in ("", "allow-scripts"):
        outer = visit(frame)
        outer.page.evaluate(
            """([html, sandbox]) => { const frame = document.querySelector("iframe");
            if (sandbox) frame.setAttribute("sandbox", sandbox); frame.srcdoc = html; }""",
            [html, sandbox],
        )
        inner = outer.page.frame_locator("iframe")
        inner.locator("nav >> text=Classes").click()
        inner.locator("td.who >> text=dog >> nth=0").click()
        assert inner.locator("h1:visible").inner_text() == "dog"
        inner.locator("#theme").click()
        inner.locator("a[rel=next]").click()
        assert inner.locator("h1:visible").inner_text() == "frog"
        assert outer.page.url == outer.address


@pytest.mark.slow
def test_hostile_names_are_text(visit: Open, pictured: Made) -> None:
    document, classes, features, images = pictured()
    for row, name in zip(document["classes"], HOSTILE, strict=True):
        row["name"] = name
    for i, image in enumerate(images):
        image["id"] = f"{HOSTILE[i % 10]}{i}"
        if i % 9 == 0:
            image["src"] = None
    document["title"] = document["about"]["network"] = HOSTILE[0]
    document["curve"]["series"][1]["name"] = HOSTILE[1]
    document["about"]["warnings"] = [HOSTILE[2]]
    for width in (360, 1440):
        seen = visit(render(document, classes, features, images), width=width)
        routes = [*VIEWS, *(f"class/{c}" for c in range(10))]
        for view in seen.tour(routes):
            assert view["fits"], view["route"]
            assert view["images"], view["route"]
        seen.go("class/0")
        assert seen.heading() == HOSTILE[0]
        seen.go("class/1")
        assert seen.heading() == HOSTILE[1]
        seen.go("class/4")
        assert seen.heading().startswith("bell␇ escape␛[31m nul␀")
        seen.go("class/8")
        assert seen.heading() == "(no name)"
        seen.page.fill("#search", "<script")
        assert seen.text("#found bdi") == HOSTILE[0]


def test_without_images_the_page_is_complete(visit: Open, noisy: Made) -> None:
    document, *rest = noisy()
    document["reasons"] = None
    seen = visit(render(document, *rest))
    assert all(view["heading"] for view in seen.tour(VIEWS))
    assert seen.page.locator("[data-glance]").count() == 0
    assert seen.page.locator("#maps").is_hidden()
    seen.go("summary")
    assert "Sufficient reasons were not computed" in seen.text("#summary-view")
    seen.go("class/3")
    assert "there are no images to show" in seen.text("#other-view")
    assert seen.page.locator(".trait").count() >= 8


def test_missing_images_and_maps_are_named(visit: Open, pictured: Made) -> None:
    document, classes, features, images = pictured()
    for image in images[::2]:
        image["src"] = None
    document["pictures"].update(maps=None, grid=None, note="There are no heat maps: gone.")
    seen = visit(render(document, classes, features, images), "class/3")
    gone = seen.page.locator(".frame.missing")
    assert gone.count() > 0
    assert gone.first.inner_text() in {image["id"] for image in images}
    assert seen.page.locator("canvas.map").count() == 0
    assert "There are no heat maps: gone." in seen.text("#other-view")


def test_the_key_of_maps_without_negative_values_has_no_cold_half(
    visit: Open, pictured: Made
) -> None:
    document, *rest = pictured()
    for signed in (True, False):
        document["pictures"]["signed"] = signed
        seen = visit(render(document, *rest), "class/3")
        assert ("lowers" in seen.text(".map-key")) == signed
        seen.go("guide")
        assert ("where it lowers it" in seen.text("#guide-view")) == signed


def test_unknown_numbers_are_dashes(visit: Open, noisy: Made) -> None:
    document, classes, features, images = noisy()
    for row in document["classes"]:
        row.update(dense=None, sparse=None, reason=None, confused=None)
    for row in document["features"]:
        row.update(best=None, share=None, evidence=None)
    document["about"].update(network=None, layer=None, data=None)
    for detail in classes:
        detail.update(confusions=[], logit=None)
        for trait in detail["features"]:
            trait.update(influence=None, share=None, mean=None, elsewhere=None, sparse_share=None)
    seen = visit(render(document, classes, features, images))
    for view in seen.tour(VIEWS):
        for word in ("null", "NaN", "undefined", "None"):
            assert word not in view["text"], view["route"]


@pytest.mark.parametrize(("n_classes", "n_features"), [(2, 1), (3, 4)])
def test_the_smallest_reports(visit: Open, tmp_path: Path, n_classes: int, n_features: int) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(30, n_features, generator=generator)
    head = torch.randn(n_classes, n_features, generator=generator)
    features = Features.of(z, torch.arange(30) % n_classes, head)
    report = Report.of(analyze_features(features, None, tmp_path / "run"), k=1)
    routes = ("summary", "classes", "class/0", "features", "feature/0", "mistakes")
    assert all(view["heading"] for view in visit(report.html()).tour(routes))


def test_the_peak_of_a_map_is_the_warmest_spot_and_lies_over_the_image(
    visit: Open, pictured: Made
) -> None:
    values = np.full((7, 7), 10)
    values[1, 5] = 127
    values[5, 2] = -90
    document, classes, features, images = pictured()
    document["pictures"]["grid"] = [7, 7]
    classes[0]["features"][0]["own"][0][2] = map_of(values)
    seen = visit(render(document, classes, features, images), "class/0")
    canvas = seen.page.locator(".trait canvas.map").first
    pixels = canvas.evaluate(
        """canvas => { const { width: w, height: h } = canvas;
        return [w, h, [...canvas.getContext("2d").getImageData(0, 0, w, h).data]]; }"""
    )
    width, height, data = pixels
    rgba = np.array(data, dtype=float).reshape(height, width, 4)
    warmth = (rgba[..., 0] - rgba[..., 2]) * rgba[..., 3]
    row, column = np.unravel_index(warmth.argmax(), warmth.shape)
    assert (row * 7 // height, column * 7 // width) == (1, 5)
    row, column = np.unravel_index(warmth.argmin(), warmth.shape)
    assert (row * 7 // height, column * 7 // width) == (5, 2)
    boxes = canvas.evaluate(
        """canvas => [canvas, canvas.parentElement.querySelector("img")].map(element => {
        const box = element.getBoundingClientRect();
        return [box.x, box.y, box.width, box.height]; })"""
    )
    assert boxes[0] == boxes[1]


def test_small_images_are_enlarged_in_sharp_pixels(visit: Open, pictured: Made) -> None:
    document, classes, features, images = pictured()
    for side, rendering in ((32, "pixelated"), (64, "auto")):
        for image in images:
            image["src"] = picture(side)
        seen = visit(render(document, classes, features, images), "class/0")
        shown = seen.page.locator(".trait img").first
        seen.go("class/0")
        assert shown.evaluate("i => getComputedStyle(i).imageRendering") == rendering
        assert shown.evaluate("i => i.clientWidth") > 60


def test_the_values_of_the_curve_are_shown_on_focus(visit: Open, pictured: Made) -> None:
    document, *rest = pictured()
    (chosen,) = (line for line in document["curve"]["series"] if line["chosen"])
    k, accuracy = sorted(chosen["points"])[-1]
    seen = visit(render(document, *rest))
    seen.page.locator(".roomy .point.tone-0").last.focus()
    assert seen.text(".tip") == f"{chosen['name']} · k = {k} · {100 * accuracy:.2f}%"


@pytest.mark.slow
def test_a_large_report(visit: Open, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3000) % 1000
    head = torch.randn(1000, 96, generator=generator)
    z = (torch.randn(3000, 96, generator=generator) + head[labels]).relu()
    names = [f"class number {c}" for c in range(1000)]
    features = Features.of(z, labels, head, class_names=names)
    run = analyze_features(features, None, tmp_path / "run", Options(fit=False))
    report = Report.of(run, k=5)
    html = report.html()
    assert len(html.encode()) < 10e6
    seen = visit(html)
    for route in ("classes", "class/999", "features", "feature/95", "mistakes", "mistake/99"):
        seen.go(route)
        assert seen.heading()
    seen.go("classes")
    assert seen.page.locator("#other-view tbody tr").count() < 1000
    seen.page.locator("#other-view tbody tr").last.scroll_into_view_if_needed()
    seen.page.locator("#other-view tbody tr").nth(121).wait_for(state="attached")
    seen.page.fill(".filter input", "number 77")
    assert seen.page.locator("#other-view tbody tr").count() == 11

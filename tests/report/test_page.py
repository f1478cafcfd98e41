"""The report page in a real browser."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from browsing import Open
from penult.report.page import render
from report_document import Maker, map_of, painted

if TYPE_CHECKING:
    pass

VIEWS = [
    *("summary", "guide", "classes", "class/3", "mistakes", "mistake/5"),
    *("features", "feature/12", "feature/11", "feature/21", "features/dead"),
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
def html() -> str:
    return render(*Maker().report())


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


def test_every_internal_link_leads_to_a_view_of_its_own(visit: Open) -> None:
    seen = visit(render(*Maker(n_features=24, n_mistakes=12).report()))
    routes: dict[str, str] = {}
    waiting = {"#summary"}
    while waiting:
        for view in seen.tour([href.removeprefix("#") for href in waiting]):
            routes["#" + view["route"]] = view["heading"]
            waiting |= set(view["links"])
        waiting -= set(routes)
        assert all(href.startswith("#") for href in waiting)
    # tabs, warnings, classes and their mistakes, features, mistakes
    assert len(routes) == 5 + 3 + 10 + 10 + 24 + 12
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
        ("mistake/99", "No such mistake"),
        ("nothing", "ResNet-20 on CIFAR-10"),
        ("%E0%A4%A", "ResNet-20 on CIFAR-10"),
    ],
)
def test_a_deep_link_opens_its_view(visit: Open, html: str, route: str, heading: str) -> None:
    assert visit(html, route).heading() == heading


def test_start_names_the_view_that_opens_first(visit: Open) -> None:
    document, *rest = Maker(n_mistakes=4).report()
    seen = visit(render({**document, "start": "class/3"}, *rest))
    assert seen.heading() == "cat"
    seen.page.click("nav >> text=Summary")
    assert seen.heading() == "ResNet-20 on CIFAR-10"


def test_back_and_forward(visit: Open, html: str) -> None:
    seen = visit(html)
    seen.page.click("nav >> text=Classes")
    seen.page.click("td.who >> text=dog >> nth=0")
    assert seen.heading() == "dog"
    seen.page.go_back()
    seen.page.locator("h1:visible >> text=Classes").wait_for()
    seen.page.go_forward()
    seen.page.locator("h1:visible >> text=dog").wait_for()


def test_the_summary_is_complete_without_scripts(visit: Open, html: str) -> None:
    seen = visit(html, java_script_enabled=False)
    text = seen.page.inner_text("#summary-view")
    for part in (
        "5 of 64 features per class keep 91.31%",
        "91.73%",
        "0.42 points",
        "interval 0.18 to 0.66",
        "The smallest head whose loss is below one point",
        "8 of 120 images"[2:],
        "757 of both heads",
    ):
        assert part in text
    assert seen.page.inner_text("#guide-view").startswith("How to read this page")


def test_the_summary_and_the_guide_say_how_far_the_heads_agree(visit: Open) -> None:
    document, *rest = Maker().report()
    seen = visit(render(document, *rest))
    numbers = seen.page.locator("#summary-view .numbers > div")
    assert "Agreement\n98.35%\nsame class as the dense head" in numbers.all_inner_texts()
    seen.go("guide")
    for word in ("Features chosen by curvature", "Weights softmax", "Between classes"):
        assert word in seen.text("#guide-view")
    assert "as far as the two heads agree" in seen.text("#guide-view")
    assert "can be ignored" not in seen.text("#guide-view")
    for unknown in ({}, {"agreement": None}):
        head = {key: value for key, value in document["head"].items() if key != "agreement"}
        seen = visit(render({**document, "head": {**head, **unknown}}, *rest))
        assert "Agreement" not in seen.text("#summary-view")


@pytest.mark.parametrize("n_losers", [0, 2, 9, 10])
def test_only_classes_that_lose_are_said_to_lose(visit: Open, n_losers: int) -> None:
    document, *rest = Maker().report()
    for c, row in enumerate(document["classes"]):
        row.update(dense=0.9, sparse=0.88 if c < n_losers else 0.9)
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


def test_the_dots_of_the_class_table_stand_on_one_axis(visit: Open) -> None:
    document, *rest = Maker().report()
    for c, row in enumerate(document["classes"]):
        row.update(dense=0.9, sparse=0.9 - (0.0, 0.001, 0.12, -0.05)[c % 4])
    seen = visit(render(document, *rest), "classes")
    tracks = seen.page.locator(".listing .track")
    places = tracks.evaluate_all("all => all.map(track => track.getBoundingClientRect().x)")
    assert len(places) == 10
    assert max(places) - min(places) < 0.5


def test_on_a_phone_the_name_of_the_class_stays_while_the_table_scrolls(visit: Open) -> None:
    seen = visit(render(*Maker().report()), "classes", width=390)
    name = seen.page.locator(".listing tbody td.who").first
    seen.page.locator(".scroll:visible").evaluate("box => box.scrollLeft = 400")
    left = "cell => cell.getBoundingClientRect().x"
    assert 0 <= name.evaluate(left) < 30
    assert name.locator("xpath=preceding-sibling::td").first.evaluate(left) < -200


def test_the_class_page_says_what_the_document_says(visit: Open) -> None:
    document, classes, features, images = Maker().report()
    seen = visit(render(document, classes, features, images), "class/2")
    traits = seen.page.locator(".trait")
    assert traits.count() == 5
    for place, trait in enumerate(classes[2]["features"]):
        text = traits.nth(place).inner_text()
        assert f"Feature {trait['feature']}" in text
        assert f"\n{100 * trait['share']:.0f}% of the evidence" in text
    shots = traits.nth(0).locator(".shot")
    assert shots.count() == 16
    assert "3.10" in shots.nth(0).inner_text()
    assert shots.nth(0).locator("img").get_attribute("alt") == "class002/image_000001.png, bird"


def test_a_share_has_the_colour_of_its_influence_and_absence_is_named(visit: Open) -> None:
    document, classes, *rest = Maker().report()
    signs = [(1.0, 2.0), (-1.0, 2.0), (1.0, -2.0), (-1.0, -2.0), (-1.0, None)]
    for trait, (weight, influence) in zip(classes[2]["features"], signs, strict=True):
        trait.update(weight=weight, influence=influence)
    seen = visit(render(document, classes, *rest), "class/2")
    bars = seen.page.locator(".share + .track-bar")
    kinds = bars.evaluate_all("bars => bars.map(bar => bar.classList[1])")
    assert kinds == ["pos", "pos", "neg", "neg", "neg"]
    texts = seen.page.locator(".trait-facts").all_inner_texts()
    named = ["its absence speaks for this class" in text for text in texts]
    assert named == [False, True, False, False, False]


def test_a_card_shows_positive_weights_first_and_says_what_it_hides(visit: Open) -> None:
    document, classes, *rest = Maker(k=6, missing_every=10**6).report()
    traits = classes[2]["features"]
    for trait, weight in zip(traits, (-1, 1, 1, 1, -1, -1), strict=True):
        trait.update(weight=float(weight), influence=1.0)
    seen = visit(render(document, classes, *rest))
    card = seen.page.locator(".card").nth(2)
    card.locator(".frame").first.wait_for()
    shown = [str(traits[place]["feature"]) for place in (1, 2, 3)]
    last = f"\u2212{traits[0]['feature']} +2"
    assert card.locator("small").all_inner_texts() == [*shown, last]
    assert card.locator("small .neg").get_attribute("title") == "its absence speaks for this class"


def test_contributions_add_up_to_the_gap(visit: Open) -> None:
    document, *rest = Maker().report()
    seen = visit(render(document, *rest), "mistake/1")
    for place, reason in enumerate(document["mistakes"]["rows"][1]["reasons"]):
        panel = seen.page.locator(".reason").nth(place)
        texts = panel.locator(".line .n").all_inner_texts()
        values = [float(text.replace("\u2212", "-")) for text in texts]
        assert sum(values[:-1]) == pytest.approx(values[-1], abs=0.05)
        assert values[-1] == pytest.approx(reason["gap"], abs=0.005)


def test_warnings_of_a_feature_are_sentences(visit: Open, html: str) -> None:
    seen = visit(html, "feature/11")
    assert "same value on all images" in seen.text(".warnings")
    seen.go("feature/17")
    assert "1.20% of its variance" in seen.text(".warnings")
    seen.go("feature/20")
    assert "It duplicates feature 21: their correlation is 0.998" in seen.text(".warnings")
    seen.go("feature/30")
    assert seen.page.locator(".warnings").count() == 0


def test_tables_sort_and_filter(visit: Open) -> None:
    document, *rest = Maker().report()
    seen = visit(render(document, *rest), "classes")

    def names() -> list[str]:
        return seen.page.locator("#other-view tbody td.who:nth-child(3)").all_inner_texts()

    assert names() == [row["name"] for row in document["classes"]]
    for column in ("Sparse", "Samples", "Class"):
        key = {"Sparse": "sparse", "Samples": "n_samples", "Class": "name"}[column]
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
    assert seen.page.locator("#other-view tbody tr").count() == 64


def test_mistakes_filter_by_kind_and_class(visit: Open) -> None:
    document, *rest = Maker().report()
    rows = document["mistakes"]["rows"]
    seen = visit(render(document, *rest), "mistakes")
    assert seen.page.locator(".case").count() == 60
    text = seen.text("#other-view .heading p")
    assert text == (
        "939 mistakes among 10,000 images. Shown in this order: the surest 20 of 757 that both "
        "heads get wrong; the surest 20 of 70 that only the dense head gets wrong; the surest 20 "
        "of 112 that only the sparse head gets wrong."
    )
    seen.page.select_option("select >> nth=0", "only-dense")
    of_kind = [row for row in rows if row["kind"] == "only-dense"]
    assert seen.page.locator(".case").count() == len(of_kind)
    seen.page.get_by_label("Label").select_option("4")
    fit = [row for row in of_kind if row["label"] == 4]
    assert seen.page.locator(".case").count() == len(fit) > 0
    assert seen.page.url.endswith("#mistakes/4")
    seen.page.click(".case >> nth=0")
    seen.page.go_back()
    seen.page.locator("h1:visible >> text=Mistakes").wait_for()
    assert seen.page.locator(".case").count() == len(fit)
    seen.page.click("nav >> text=Mistakes")
    assert seen.page.locator(".case").count() == 60


def test_the_mistakes_of_a_class_have_an_address(visit: Open) -> None:
    document, *rest = Maker().report()
    rows = document["mistakes"]["rows"]
    seen = visit(render(document, *rest), "class/4")
    seen.page.click("text=Its mistakes")
    assert seen.page.url.endswith("#mistakes/4")
    assert seen.page.get_by_label("Label").input_value() == "4"
    labels = seen.page.locator(".case .said bdi:first-child").all_inner_texts()
    assert labels == ["deer"] * sum(row["label"] == 4 for row in rows) != []
    document["mistakes"]["rows"] = [row for row in rows if row["label"] != 4]
    seen = visit(render(document, *rest), "mistakes/4")
    assert "No mistake of this class is shown" in seen.text("#other-view")
    seen.go("class/4")
    assert seen.page.locator("text=Its mistakes").count() == 0


def test_the_rest_of_a_list_is_counted_on_its_button(visit: Open) -> None:
    document, *rest = Maker(n_mistakes=150).report()
    seen = visit(render(document, *rest), "mistakes", width=400)
    assert seen.text(".more-rows") == "Show 30 more"
    seen.page.click(".more-rows")
    assert seen.page.locator(".case").count() == 150
    assert seen.page.locator(".more-rows").is_hidden()


def test_an_address_may_name_a_class_as_people_do(visit: Open) -> None:
    names = ("7", "99", "a/b c", "snø & fog%", "undefined", "x", "y", "z", "10", "twelve")
    seen = visit(render(*Maker(names=names).report()))
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


def test_confusions_say_what_the_bars_compare_and_lead_to_the_mistakes(visit: Open) -> None:
    document, classes, *rest = Maker().report()
    rival = classes[3]["confusions"][0]
    rival.update({"class": 5, "to": [60, 53], "from": [71, 0]})
    rival["misled"] = [{"feature": 12, "moves": -2.5}, {"feature": 7, "moves": 0.5}]
    seen = visit(render(document, classes, *rest), "class/3")
    panel = seen.page.locator(".rival").first
    captions = panel.locator("h4").all_inner_texts()
    assert captions == [
        "What separates the average cat from the average dog",
        "In the 53 taken for dog: what moved them there",
    ]
    misled = panel.locator(".ledger").nth(1)
    assert misled.locator("a").all_inner_texts() == ["12", "7"]
    assert misled.locator(".n").all_inner_texts() == ["\u22122.50", "+0.500"]
    kinds = misled.locator(".diverging i").evaluate_all("bars => bars.map(bar => bar.className)")
    assert kinds == ["neg", "pos"]
    links = panel.locator("td a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert links == ["#mistakes/3", "#mistakes/3", "#mistakes/5"]
    rival["misled"], rival["to"] = [], [0, 0]
    for rival in classes[4]["confusions"]:
        del rival["misled"]
    seen = visit(render(document, classes, *rest), "class/3")
    assert seen.page.locator(".rival").first.locator("h4").count() == 1
    seen.go("class/4")
    assert seen.page.locator(".rival h4").count() == 3


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


def test_an_image_opens_large_and_the_arrows_go_along_the_strip(visit: Open, html: str) -> None:
    seen = visit(html, "class/3")
    seen.page.click(".shot button >> nth=0")
    assert "class003/image_000001.png" in seen.text("dialog")
    seen.page.keyboard.press("ArrowRight")
    assert "class003/image_000006.png" in seen.text("dialog")
    assert seen.heading() == "cat"
    seen.page.keyboard.press("Escape")
    seen.page.locator("dialog").wait_for(state="detached")


def test_the_theme_is_kept(visit: Open, html: str) -> None:
    seen = visit(html, color_scheme="light")
    theme = "document.documentElement.dataset.theme"
    seen.page.click("#theme")
    assert seen.page.evaluate(theme) == "dark"
    seen.page.reload()
    assert seen.page.evaluate(theme) == "dark"


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


def test_hostile_names_are_text(visit: Open) -> None:
    maker = Maker(names=HOSTILE, ids=lambda c, i: f"{HOSTILE[c]}{i}")
    document, *rest = maker.report()
    document["title"] = document["about"]["network"] = HOSTILE[0]
    document["curve"]["series"][1]["name"] = HOSTILE[1]
    for width in (360, 1440):
        seen = visit(render(document, *rest), width=width)
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


def test_without_images_the_page_is_complete(visit: Open) -> None:
    document, *rest = Maker(picture=None, grid=None).report()
    document["reasons"] = None
    seen = visit(render(document, *rest))
    assert all(view["heading"] for view in seen.tour(VIEWS))
    assert seen.page.locator("[data-glance]").count() == 0
    assert seen.page.locator("#maps").is_hidden()
    seen.go("summary")
    assert "Sufficient reasons were not computed" in seen.text("#summary-view")
    seen.go("class/3")
    assert "there are no images to show" in seen.text("#other-view")
    assert seen.page.locator(".trait").count() == 5


def test_missing_images_and_maps_are_named(visit: Open) -> None:
    document, classes, features, images = Maker(missing_every=2, grid=None).report()
    seen = visit(render(document, classes, features, images), "class/3")
    gone = seen.page.locator(".frame.missing")
    assert gone.count() > 0
    assert "class003/image_" in gone.first.inner_text()
    assert seen.page.locator("canvas.map").count() == 0
    assert document["pictures"]["note"] in seen.text(".note >> text=A map is")


def test_the_key_of_maps_without_negative_values_has_no_cold_half(visit: Open) -> None:
    document, *rest = Maker().report()
    seen = visit(render(document, *rest), "class/3")
    assert seen.text(".map-key").split() == ["lowers", "raises", "the", "feature"]
    for signed, cold in ((True, True), (False, False)):
        document["pictures"]["signed"] = signed
        seen = visit(render(document, *rest), "class/3")
        assert ("lowers" in seen.text(".map-key")) == cold
        seen.go("guide")
        assert ("where it lowers it" in seen.text("#guide-view")) == cold


def test_unknown_numbers_are_dashes(visit: Open) -> None:
    document, classes, features, images = Maker().report()
    for row in document["classes"]:
        row.update(dense=None, sparse=None, reason=None, confused=None)
    for row in document["features"]:
        row.update(best=None, share=None)
    document["about"].update(network=None, layer=None, data=None)
    for detail in classes:
        detail["confusions"] = []
    seen = visit(render(document, classes, features, images))
    for view in seen.tour(VIEWS):
        for word in ("null", "NaN", "undefined", "None"):
            assert word not in view["text"], view["route"]


@pytest.mark.parametrize("maker", [Maker(n_classes=1, k=1), Maker(n_classes=2, n_features=1, k=1)])
def test_the_smallest_reports(visit: Open, maker: Maker) -> None:
    document, *rest = maker.report()
    document["curve"]["series"] = document["curve"]["series"][:1]
    seen = visit(render(document, *rest))
    routes = ("summary", "classes", "class/0", "features", "feature/0", "mistakes")
    assert all(view["heading"] for view in seen.tour(routes))


def test_the_peak_of_a_map_is_the_warmest_spot_and_lies_over_the_image(visit: Open) -> None:
    values = np.full((7, 7), 10)
    values[1, 5] = 127
    values[5, 2] = -90
    document, classes, features, images = Maker(grid=(7, 7)).report()
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


def test_small_images_are_enlarged_in_sharp_pixels(visit: Open) -> None:
    for side, rendering in ((32, "pixelated"), (64, "auto")):
        maker = Maker(picture=painted(side, 4), side=side, n_mistakes=2)
        seen = visit(render(*maker.report()), "class/0")
        image = seen.page.locator(".trait img").first
        seen.go("class/0")
        assert image.evaluate("i => getComputedStyle(i).imageRendering") == rendering
        assert image.evaluate("i => i.clientWidth") > 60


def test_the_values_of_the_curve_are_shown_on_focus(visit: Open, html: str) -> None:
    seen = visit(html)
    seen.page.locator(".roomy .point.tone-0").nth(3).focus()
    assert seen.text(".tip") == "curvature · k = 5 · 90.90%"


def test_a_large_report(visit: Open, capsys: pytest.CaptureFixture[str]) -> None:
    maker = Maker(
        n_classes=1000,
        n_features=2048,
        k=4,
        n_shots=3,
        names=(),
        images_per_class=4,
        picture=painted(32, 20),
        grid=(7, 7),
        n_mistakes=300,
    )
    html = render(*maker.report())
    assert len(html.encode()) < 30e6
    started = time.perf_counter()
    seen = visit(html)
    loaded = time.perf_counter() - started
    paint = seen.page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    assert "91.31%" in seen.text("#summary-view")
    times = {"first paint": paint / 1e3, "loaded": loaded}
    for route in ("classes", "class/999", "features", "feature/2047", "mistakes", "mistake/299"):
        started = time.perf_counter()
        seen.go(route)
        assert seen.heading()
        times[route] = time.perf_counter() - started
    seen.go("classes")
    assert seen.page.locator("#other-view tbody tr").count() < 1000
    seen.page.locator("#other-view tbody tr").last.scroll_into_view_if_needed()
    seen.page.locator("#other-view tbody tr").nth(121).wait_for(state="attached")
    seen.page.fill(".filter input", "number 77")
    assert seen.page.locator("#other-view tbody tr").count() == 11
    with capsys.disabled():
        size = f"{len(html.encode()) / 1e6:.1f} MB"
        print(f"\n{size}:", ", ".join(f"{name} {t:.2f} s" for name, t in times.items()))
    assert max(times.values()) < 5

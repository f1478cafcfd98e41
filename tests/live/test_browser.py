"""The app in a real browser: what its switches say is what `penult edit` says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from acted_run import NAMES, VALUES, acted
from browsing import Visit
from penult import Run
from penult.edit.edit import Edit
from penult.edit.edited_run import EditedRun
from penult.edit.recipe import Recipe
from penult.live.requests import name_of
from penult.live.server import LiveServer
from penult.report.page import percent, points

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FileChooser, Route

pytest.importorskip("starlette")

Browse = Callable[..., Visit]
VIEWS = ["summary", "classes", "class/2", "features", "feature/3", "mistakes",
         "samples", "samples?class=1&feature=3", "sample/eval/4", "groups", "suspects", "suspect/0",
         "edits", "edit/0", "edit/now", "upload", "guide"]  # fmt: skip
OFF = Edit("off", feature=3, of=NAMES[2])
NETWORK_GONE = ("status of 401", "ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run lies; tests that write into it have a copy."""
    return acted(tmp_path_factory.mktemp("live")).folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[LiveServer]:
    server = started(folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pictured(digits: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Of digits, with their images and network."""
    copy = tmp_path_factory.mktemp("pictured") / "digits"
    shutil.copytree(digits.folder, copy)
    server = started(copy)
    yield server
    server.stop()


def started(folder: Path, port: int | None = None) -> LiveServer:
    server = LiveServer(folder, port=port)
    server.read()
    server.start()
    return server


@pytest.fixture
def browse(browser: Browser, served: LiveServer) -> Iterator[Browse]:
    """Open the app; at the end of the test nothing may have gone wrong in it."""
    visits: list[tuple[Visit, tuple[str, ...]]] = []

    def browse(
        route: str = "summary",
        width: int = 1440,
        server: LiveServer = served,
        beside: Visit | None = None,
        expected: tuple[str, ...] = (),
        **options: Any,
    ) -> Visit:
        context = (
            beside.page.context
            if beside
            else browser.new_context(viewport={"width": width, "height": 900}, **options)
        )
        page = context.new_page()
        made = Visit(page, server.address)
        page.on("console", lambda message: made.said.append(message.text))
        page.on("pageerror", lambda error: made.said.append(str(error)))
        page.on("dialog", made.dismiss)
        page.on("request", lambda request: made.asked.append(request.url))
        page.set_default_timeout(20_000)
        page.goto(server.address)
        page.wait_for_selector(".dock")
        made.address = page.url.partition("#")[0]
        visits.append((made, expected))
        if route != "summary":
            go(made, route)
        return made

    yield browse
    for made, expected in visits:
        assert [text for text in made.said if not any(one in text for one in expected)] == []
        outside = [url for url in made.asked if "//127.0.0.1:" not in url]
        assert [url for url in outside if not url.startswith(("data:", "blob:"))] == []
        made.page.context.close()


def go(seen: Visit, route: str) -> None:
    """Go to a view, and wait until it stands there."""
    seen.page.evaluate("route => { location.hash = route; }", route)
    seen.page.wait_for_function(
        "() => !document.querySelector('.wait') || !document.querySelector('.wait').offsetParent"
    )
    seen.page.wait_for_timeout(50)


def told(folder: Path, *edits: Edit, sparse: tuple[str, int] | None = None) -> str:
    """The dock's numbers of a recipe, from `penult edit`."""
    overall = EditedRun.of(Run.open(folder), Recipe(edits), sparse=sparse).document["overall"]
    low, high = overall["interval"]
    return (
        f"{percent(overall['before'])} → {percent(overall['after'])} {points(-overall['loss'])} "
        f"({points(-high)} to {points(-low)} points)"
    )


def wait_for_numbers(seen: Visit, numbers: str) -> None:
    try:
        seen.page.wait_for_function(
            "text => document.querySelector('.dock-numbers').innerText.startsWith(text)",
            arg=numbers,
        )
    except Exception as error:
        raise AssertionError(f"{seen.text('.dock-numbers')!r} is not {numbers!r}") from error


def switch(seen: Visit, name: str, feature: int, of: str) -> None:
    """Press one of the switches of a feature for a class."""
    group = seen.page.get_by_role("group", name=f"Feature {feature} for {of}", exact=True)
    group.get_by_role("button", name=name, exact=True).click()


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1440, "light")])
def test_every_view_fits_and_shows_names_as_text(browse: Browse, width: int, scheme: str) -> None:
    seen = browse("class/2", width=width, color_scheme=scheme)
    switch(seen, "Off", 3, NAMES[2])
    for view in VIEWS:
        go(seen, view)
        found = seen.page.evaluate(
            "() => [document.documentElement.scrollWidth <= innerWidth,"
            " [...document.querySelectorAll('h1')].find(h => h.offsetParent)?.innerText]"
        )
        assert found[0], view
        assert found[1], view
        assert "No such" not in found[1]
        assert "could not be read" not in found[1]
    assert seen.page.locator("main script, main img[onerror], main u:not([style])").count() == 0
    go(seen, "groups")
    assert VALUES[0] in seen.page.inner_text("main")


def test_a_switch_says_at_once_what_penult_edit_says(browse: Browse, folder: Path) -> None:
    seen = browse("class/2")
    switch(seen, "Off", 3, NAMES[2])
    wait_for_numbers(seen, told(folder, OFF))
    cap = Edit("cap", feature=0, of=NAMES[2], at=0.25)
    group = seen.page.get_by_role("group", name=f"Feature 0 for {NAMES[2]}", exact=True)
    group.get_by_role("button", name="Cap").click()
    group.get_by_role("slider").fill("0.25")
    at = float(group.get_by_role("slider").input_value())
    assert at == pytest.approx(cap.at, abs=0.01)
    wait_for_numbers(seen, told(folder, OFF, Edit("cap", feature=0, of=NAMES[2], at=round(at, 5))))
    group.get_by_role("button", name="No cap").click()
    wait_for_numbers(seen, told(folder, OFF))
    row = next(
        row
        for row in EditedRun.of(Run.open(folder), Recipe((OFF,))).document["classes"]
        if row["class"] == NAMES[2]
    )
    assert seen.text(".numbers .now dd") == percent(row["after"])
    group = seen.page.get_by_role("group", name=f"Feature 3 for {NAMES[2]}", exact=True)
    assert "weight +1.00 → 0" in group.locator(".switch-said").inner_text()
    go(seen, "classes")
    cells = seen.page.locator("tbody tr", has_text=NAMES[2][:8]).locator("td").all_inner_texts()
    assert any(percent(row["after"]) in cell for cell in cells)


def test_weights_for_a_class_and_factors_for_all(browse: Browse, folder: Path) -> None:
    seen = browse("feature/3")
    group = seen.page.get_by_role("group", name="Feature 3 for all classes")
    group.get_by_role("button", name="Weight").click()
    group.get_by_role("slider").fill("0.5")
    wait_for_numbers(seen, told(folder, Edit("scale", feature=3, value=0.5)))
    group.get_by_role("button", name="As it was").click()
    own = seen.page.get_by_role("group", name=f"Feature 3 for {NAMES[2]}", exact=True)
    own.get_by_role("button", name="Weight").click()
    own.get_by_role("slider").fill("0.2")
    value = float(own.get_by_role("slider").input_value())
    wait_for_numbers(seen, told(folder, Edit("set", feature=3, of=NAMES[2], value=value)))


def test_undo_redo_and_a_slider_as_one_step(browse: Browse, folder: Path) -> None:
    seen = browse("class/2")
    plain = seen.text(".dock-numbers")
    switch(seen, "Off", 3, NAMES[2])
    wait_for_numbers(seen, told(folder, OFF))
    group = seen.page.get_by_role("group", name=f"Feature 0 for {NAMES[2]}", exact=True)
    group.get_by_role("button", name="Weight").click()
    for value in ("0.001", "0.002", "0.003", "-0.004"):
        group.get_by_role("slider").fill(value)
    assert seen.page.locator(".chip").count() == 2
    seen.page.locator("h1:visible").focus()
    seen.page.keyboard.press("z")
    wait_for_numbers(seen, told(folder, OFF))
    seen.page.keyboard.press("Control+z")
    wait_for_numbers(seen, plain)
    assert seen.page.get_by_role("button", name="Undo").is_disabled()
    seen.page.keyboard.press("Shift+Z")
    wait_for_numbers(seen, told(folder, OFF))
    seen.page.get_by_role("button", name="Remove: 3 off").click()
    wait_for_numbers(seen, plain)


def test_an_answer_that_comes_after_an_undo_is_not_shown(browse: Browse, folder: Path) -> None:
    seen = browse("class/2")
    plain = seen.text(".dock-numbers")
    held: list[Route] = []
    seen.page.route("**/api/effect", lambda route: held.append(route))
    group = seen.page.get_by_role("group", name=f"Feature 3 for {NAMES[2]}", exact=True)
    group.get_by_role("button", name="Weight").click()
    with seen.page.expect_request("**/api/effect"):
        group.get_by_role("slider").fill("0.001")
    seen.page.locator("h1:visible").focus()
    seen.page.keyboard.press("z")
    wait_for_numbers(seen, plain)
    with seen.page.expect_response("**/api/effect"):
        held[0].continue_()
    seen.page.wait_for_timeout(300)
    assert seen.text(".dock-numbers") == plain


@pytest.mark.slow
def test_the_address_holds_the_state_and_tabs_do_not_share_it(browse: Browse, folder: Path) -> None:
    seen = browse("class/2")
    switch(seen, "Off", 3, NAMES[2])
    wait_for_numbers(seen, told(folder, OFF))
    other = browse(beside=seen)
    assert "no edits" in other.text(".dock-numbers")
    assert "!" not in other.page.url
    other.page.goto(seen.page.url)
    wait_for_numbers(other, told(folder, OFF))
    other.page.get_by_role("heading", name=NAMES[2], level=1).wait_for()
    seen.page.reload()
    wait_for_numbers(seen, told(folder, OFF))
    seen.page.click("nav >> text=Features")
    assert seen.heading() == "Features"
    seen.page.go_back()
    assert seen.heading() == NAMES[2]
    wait_for_numbers(seen, told(folder, OFF))
    seen.page.go_forward()
    assert seen.heading() == "Features"


def test_two_states_stand_side_by_side(browse: Browse, folder: Path) -> None:
    seen = browse("class/2")
    switch(seen, "Off", 3, NAMES[2])
    wait_for_numbers(seen, told(folder, OFF))
    switch(seen, "Off", 0, NAMES[2])
    both = Edit("off", feature=0, of=NAMES[2])
    wait_for_numbers(seen, told(folder, OFF, both))
    go(seen, "edit/now")
    earlier = f"Earlier: the network: 3 off for {NAMES[2]}"
    seen.page.get_by_label("Compare with").select_option(label=earlier)
    seen.page.wait_for_selector(".versus .side:first-child li")
    run = Run.open(folder)
    before = EditedRun.of(run, Recipe((OFF,))).document["overall"]["after"]
    after = EditedRun.of(run, Recipe((OFF, both))).document["overall"]["after"]
    wait_for_numbers(seen, f"{percent(before)} → {percent(after)}")
    seen.page.keyboard.press("n")
    seen.page.fill(".states-dialog input", "<i>both</i>")
    seen.page.click("text=Keep under this name")
    assert seen.page.locator(".states b", has_text="<i>both</i>").count() == 1
    seen.page.get_by_role("button", name="The network as it is").click()
    wait_for_numbers(seen, f"{percent(before)} → {percent(before_any(run))}")


def before_any(run: Run) -> float:
    return float(run.summary()["dense"]["accuracy"])


def test_heads_along_the_path(browse: Browse, pictured: LiveServer, digits: Run) -> None:
    seen = browse("classes", server=pictured)
    heads = seen.page.evaluate(
        "JSON.parse(document.getElementById('data-document').textContent).live.heads"
    )
    select = heads[0]["select"]
    path = sorted((row for row in heads if row["select"] == select), key=lambda row: row["k"])
    seen.page.get_by_label("Head", exact=True).select_option(select)
    dense = percent(before_any(digits))
    for at, row in ((0, path[0]), (len(path) - 1, path[-1])):
        seen.page.get_by_label("Features per class, k").fill(str(at))
        head = digits.head(row["select"], row["k"])
        z = digits.evaluation()
        right = (head(z.arrays()[0]).argmax(1) == z.labels()).double().mean()
        wait_for_numbers(seen, f"{dense} → {percent(float(right))}")
    off = Edit("off", feature=3)
    go(seen, "feature/3")
    group = seen.page.get_by_role("group", name="Feature 3 for all classes")
    group.get_by_role("button", name="Off").click()
    wait_for_numbers(seen, told(digits.folder, off, sparse=(select, path[-1]["k"])))


def test_samples_are_filtered_and_lead_to_what_decides_them(browse: Browse, folder: Path) -> None:
    evaluation = Run.open(folder).evaluation()
    labels = evaluation.labels()
    n = int((labels == 1).sum())
    seen = browse("samples?class=1&feature=3")
    seen.page.wait_for_function(
        "text => document.querySelector('.counted').textContent === text", arg=f"{n} images"
    )
    values = sorted(evaluation.mapped()[0][labels == 1][:, 3].tolist(), reverse=True)
    assert seen.page.locator(".samples .case").first.inner_text().count(f"{values[0]:.3f}") == 1
    seen.page.mouse.wheel(0, 100_000)
    seen.page.wait_for_function("() => document.querySelectorAll('.samples .case').length > 60")
    seen.page.get_by_placeholder("Part of a name").fill("<u>7")
    seen.page.wait_for_function("() => document.querySelectorAll('.samples .case').length < 60")
    assert "query=" in seen.page.url
    seen.page.locator(".id-link").first.click()
    seen.page.wait_for_selector(".what-if")
    total = seen.text(".total .n")
    slider = seen.page.locator(".moving input").first
    slider.fill(slider.get_attribute("min") or "0")
    seen.page.wait_for_function(
        "was => document.querySelector('.total .n').textContent !== was", arg=total
    )
    seen.page.get_by_role("button", name="As it was").click()
    seen.page.wait_for_function(
        "was => document.querySelector('.total .n').textContent === was", arg=total
    )


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Iterator[tuple[LiveServer, Path]]:
    """A server of a copy of the run, to write into."""
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    (copy / "verdicts.jsonl").unlink()
    server = started(copy)
    yield server, copy
    server.stop()


@pytest.mark.slow
def test_suspects_are_judged_by_keys_and_others_see_it(
    browse: Browse, own: tuple[LiveServer, Path]
) -> None:
    server, folder = own
    seen = browse("suspects", server=server)
    other = browse("suspects", server=server, beside=seen)
    first = seen.text(".work-line b")
    assert first.startswith("0 of ")
    seen.page.click(".work-line >> text=Judge the next")
    seen.page.wait_for_selector(".verdicts-row")
    heading = seen.heading()
    seen.page.fill("input[aria-label=Why]", "<b>a frame</b>")
    seen.page.locator("h1:visible").focus()
    seen.page.keyboard.press("s")
    seen.page.wait_for_function(
        "was => ![...document.querySelectorAll('h1')]"
        ".some(h => h.offsetParent && h.innerText === was)",
        arg=heading,
    )
    assert seen.text(".work-line b") == first.replace("0 of", "1 of")
    said = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    assert [(one["verdict"], one["note"]) for one in said] == [("shortcut", "<b>a frame</b>")]
    other.page.wait_for_function(
        "() => document.querySelector('.work-line b').textContent.startsWith('1 of')"
    )
    seen.page.get_by_role("button", name="Core").click()
    seen.page.wait_for_function(
        "() => document.querySelector('.work-line b').textContent.startsWith('2 of')"
    )


@pytest.mark.slow
def test_networks_recipes_and_reports_are_written(
    browse: Browse, own: tuple[LiveServer, Path], tmp_path: Path
) -> None:
    server, folder = own
    seen = browse("class/2", server=server)
    switch(seen, "Off", 3, NAMES[2])
    wait_for_numbers(seen, told(folder, OFF))
    seen.page.keyboard.press("w")
    seen.page.fill(".save-dialog input[type=text]", "mended")
    seen.page.get_by_role("button", name="Write", exact=True).click()
    seen.page.wait_for_selector("text=Written to")
    assert Recipe.load(folder / "edited" / "mended" / "recipe.json").edits == (OFF,)
    with seen.page.expect_download() as download:
        seen.page.click(".save-dialog >> text=Download")
    download.value.save_as(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json").edits == (OFF,)
    seen.page.click(".save-dialog >> text=Close")
    seen.page.get_by_role("button", name="Remove: 3 off").click()
    seen.page.keyboard.press("w")
    seen.page.set_input_files(".save-dialog input[type=file]", tmp_path / "recipe.json")
    seen.page.wait_for_selector("text=1 edit of recipe.json")
    with seen.page.expect_download() as download:
        seen.page.click("text=Make the report")
    download.value.save_as(tmp_path / "report.html")
    assert "data-edits" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_server_that_goes_and_comes_again_and_a_run_that_changes(
    browse: Browse, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    server = started(copy)
    seen = browse("class/2", server=server, expected=NETWORK_GONE)
    switch(seen, "Off", 3, NAMES[2])
    wait_for_numbers(seen, told(folder, OFF))
    server.stop()
    seen.page.wait_for_selector(".banner:has-text('does not answer')")
    again = started(copy, server.keys.port)
    try:
        assert again.keys.port == server.keys.port
        seen.page.wait_for_selector(".banner:has-text('started anew')")
        field = seen.page.get_by_label("Address that penult app printed")
        for wrong, why in (("x", "Expected the address"), (server.address, "know this token")):
            field.fill(wrong)
            field.press("Enter")
            seen.page.wait_for_selector(f".banner .failed:has-text('{why}')")
        field.fill(again.address)
        field.press("Enter")
        seen.page.wait_for_selector(".banner", state="detached")
        switch(seen, "Off", 3, NAMES[2])
        seen.page.wait_for_function("() => !document.querySelector('.chip')")
        seen.page.keyboard.press("z")
        wait_for_numbers(seen, told(folder, OFF))
        again.stop()
        seen.page.wait_for_selector(".banner:has-text('does not answer')")
        again = started(copy, server.keys.port)
        seen.page.goto(again.address)
        wait_for_numbers(seen, told(folder, OFF))
        assert seen.heading() == NAMES[2], "the view is that in which the server went"
        assert not seen.page.is_disabled("#undo")
        summary = json.loads((copy / "summary.json").read_text())
        (copy / "summary.json").write_text(json.dumps(summary, indent=1))
        seen.page.wait_for_selector(".banner:has-text('has changed on disk')")
        seen.page.click("text=Read it anew")
        seen.page.wait_for_selector(".dock")
        wait_for_numbers(seen, told(folder, OFF))
        assert seen.page.locator(".banner").count() == 0
    finally:
        again.stop()


def test_pictures_and_maps_come_when_they_are_seen(browse: Browse, pictured: LiveServer) -> None:
    seen = browse("class/3", server=pictured)
    seen.page.wait_for_selector(".strip .map", timeout=60_000)
    seen.page.locator(".shot button").first.click()
    larger = "() => document.querySelector('.viewer img').src.includes('side=640')"
    seen.page.wait_for_function(larger)
    seen.page.keyboard.press("Escape")
    go(seen, "samples?feature=3")
    all_of_them = "() => document.querySelectorAll('.samples .map').length >= 60"
    seen.page.wait_for_function(all_of_them, timeout=60_000)
    go(seen, "groups")
    assert seen.heading() == "No groups"
    go(seen, "samples?class=3")
    seen.page.locator(".samples img").first.wait_for()
    seen.page.evaluate(
        """async () => {
          const found = await fetch(document.querySelector(".samples img").src);
          const data = new DataTransfer();
          const file = new File([await found.blob()], "<b>own</b>.png", { type: "image/png" });
          data.items.add(file);
          dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
        }"""
    )
    seen.page.wait_for_selector(".what-if", timeout=60_000)
    assert seen.heading() == "<b>own</b>.png"
    assert seen.page.locator(".cases .case").count() == 12


@pytest.mark.parametrize("route", ["nonsense", "nonsense/3?x=1", "constructor", "<b>x"])
def test_an_address_of_no_view_says_so(browse: Browse, route: str) -> None:
    seen = browse(route)
    assert seen.heading() == "No such view"
    assert route.split("?")[0] in seen.text("#other-view")
    seen.page.click("text=To the summary")
    assert seen.page.evaluate("() => document.documentElement.dataset.view") == "summary"


def test_the_key_for_a_file_of_ones_own(browse: Browse, pictured: LiveServer) -> None:
    def choose(chooser: FileChooser) -> None:
        chooser.set_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"})

    seen = browse(server=pictured)
    # One listener for all, before the click: Playwright begins and ends them when it comes to it.
    seen.page.on("filechooser", choose)
    seen.page.click("#summary-view h1")
    for _ in range(2):
        seen.page.keyboard.press("o")
        seen.page.wait_for_selector(".toast:has-text('found a.txt')")
        seen.page.evaluate("() => document.querySelector('.toast').remove()")
    without = browse()
    without.page.keyboard.press("o")
    without.page.wait_for_selector(".toast:has-text('no network that could look at an image')")
    without.page.keyboard.press("?")
    assert "one of your own" not in without.page.inner_text(".keys-dialog")


def test_names_of_files_are_those_that_all_systems_take(browse: Browse) -> None:
    given = {"é – ü": "e - u", "CON": "head-CON", "..": "my-head", "a/b\\c": "a-b-c",
             " ends. ": "ends", "x" * 70: "x" * 50, "Logits.v2": "head-Logits.v2"}  # fmt: skip
    seen = browse("class/2")
    switch(seen, "Off", 3, NAMES[2])
    for name, file in given.items():
        seen.page.keyboard.press("n")
        seen.page.fill(".states-dialog input", name)
        seen.page.keyboard.press("Enter")
        seen.page.keyboard.press("Escape")
        seen.page.keyboard.press("w")
        assert seen.page.get_by_label("Name", exact=True).input_value() == file
        assert name_of({"name": file}) == file, "the server takes it too"
        seen.page.keyboard.press("Escape")
        seen.page.evaluate("() => localStorage.clear()")


@pytest.mark.parametrize(
    "state",
    [
        "{bad",
        '{"head":"dense","edits":[null]}',
        '{"head":"dense","edits":[{"edit":"scale","feature":0,"value":"x"}]}',
        "{}",
    ],
)
def test_edits_of_an_address_that_cannot_be_read_are_left_out(browse: Browse, state: str) -> None:
    seen = browse(f"class/1!{quote(state, safe='')}")
    seen.page.get_by_role("heading", name=NAMES[1], level=1).wait_for()
    assert "no edits" in seen.text(".dock-numbers")
    seen.page.wait_for_selector(".toast:has-text('The edits in this address cannot be read')")


def test_a_key_that_is_held_down_judges_once(browse: Browse, tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "run")
    server = started(tmp_path / "run")
    try:
        seen = browse("suspect/1", server=server)
        before = (tmp_path / "run" / "verdicts.jsonl").read_text()
        for _ in range(6):
            seen.page.keyboard.down("c")
        seen.page.wait_for_function("() => location.hash.startsWith('#suspect/2')")
        seen.page.keyboard.down("c")
        seen.page.wait_for_timeout(300)
        after = (tmp_path / "run" / "verdicts.jsonl").read_text()
        assert after.count("\n") == before.count("\n") + 1
    finally:
        server.stop()


def test_two_clicks_save_once(browse: Browse) -> None:
    seen = browse("class/2")
    asked: list[str] = []
    for kind in ("write", "report"):
        seen.page.route(f"**/api/{kind}", lambda route: asked.append(route.request.url))
    seen.page.keyboard.press("w")
    seen.page.get_by_role("button", name="Write", exact=True).dblclick()
    seen.page.get_by_role("button", name="Make the report").click()
    seen.page.wait_for_timeout(200)
    assert len(asked) == 1


def test_keys_are_listed(browse: Browse) -> None:
    seen = browse("class/0")
    seen.page.keyboard.press("?")
    text = seen.page.inner_text(".keys-dialog")
    assert "undo and redo an edit" in text
    assert "on a suspect: core, shortcut, label noise, unsure" in text
    seen.page.keyboard.press("Escape")
    seen.page.keyboard.press("e")
    assert seen.heading() == "Effect of the edits"

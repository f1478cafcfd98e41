"""Fixtures that all tests share."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import torch
from filelock import FileLock

from browsing import Open, Visit
from penult import Run
from penult.demo import demo
from penult.report.report import Report
from report_parts import Made, named, noisy_report, parts_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Share = Callable[[str, Callable[[Path], object]], Path]
CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def few_proofs() -> Iterator[None]:
    """Reports prove the sufficient reasons of a few images, which take the longest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penult.report.document.REASON_SAMPLES", 20)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is remembered beyond the tests, nor found from before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data(repository: Path) -> Path:
    """The folder with CIFAR-10 images, checkpoints and features that lies beside the repository."""
    folder = repository.parent / "shared" / "data"
    if not folder.is_dir():
        _absent(f"the real data are not there: expected {folder}")
    return folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Share:
    """Make a folder once for all processes that run the tests, and give each a copy of it."""

    def share(name: str, make: Callable[[Path], object]) -> Path:
        own = tmp_path_factory.mktemp(name) / name
        if "PYTEST_XDIST_WORKER" not in os.environ:
            make(own)
            return own
        made = tmp_path_factory.getbasetemp().parent / name
        with FileLock(f"{made}.lock"):
            if not made.exists():
                make(own)
                own.rename(made)
        shutil.copytree(made, own)
        return own

    return share


@pytest.fixture(scope="session")
def digits(shared_folder: Share) -> Run:
    """The run of the demo; tests leave it as it is, but for its pictures."""
    return Run.open(shared_folder("demo", demo))


@pytest.fixture(scope="session")
def report(digits: Run) -> Report:
    """Of the demo's network, with pictures and maps, and its few mistakes."""
    return Report.of(digits, k=5)


@pytest.fixture(scope="session")
def pictured(report: Report) -> Made:
    """The parts of that report, anew at each call."""
    return lambda: named(report.data)


@pytest.fixture(scope="session")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The parts of a report without pictures, see `noisy_report`."""
    data = noisy_report(tmp_path_factory.mktemp("noisy"))
    return lambda: parts_of(data)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium that opens the pages of reports.

    It ends with its module: as long as Playwright lives, its event loop runs in this thread, and
    a test of another module that begins a loop of its own would fail.
    """
    if importlib.util.find_spec("playwright") is None:
        _absent("no browser to open the page with: pip install playwright")
    if not CHROMIUM.exists():
        _absent(f"no browser to open the page with: expected {CHROMIUM}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Open HTML as a file; at the end of the test nothing may have gone wrong in it."""
    visits: list[Visit] = []

    def visit(html: str, route: str = "", width: int = 1440, **options: Any) -> Visit:
        file = tmp_path / f"report{len(visits)}.html"
        file.write_bytes(html.encode())
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        page = context.new_page()
        made = Visit(page, file.as_uri())
        page.on("console", lambda message: made.said.append(message.text))
        page.on("pageerror", lambda error: made.said.append(str(error)))
        page.on("dialog", made.dismiss)
        page.set_default_timeout(15_000)
        page.on("request", lambda request: made.asked.append(request.url))
        page.goto(made.address + (f"#{route}" if route else ""))
        visits.append(made)
        return made

    yield visit
    for made in visits:
        assert made.said == []
        outside = [url for url in made.asked if not url.startswith(("data:", made.address))]
        assert outside == []
        made.page.context.close()


def _absent(reason: str) -> NoReturn:
    if os.environ.get("PENULT_REQUIRE_REAL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def two_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network for two digits in one image, its images, and `run`; not to change."""
    from two_digits import analyse, prepare

    folder = tmp_path_factory.mktemp("two-digits")
    prepare(folder)
    analyse(folder, folder / "run")
    return folder


@pytest.fixture(scope="session")
def two_workers() -> Iterator[str]:
    """The address of a Ray with two workers on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 200 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    yield str(cluster.address)
    cluster.shutdown()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what `cluster_work` writes."""
    from cluster_work import prepare

    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path

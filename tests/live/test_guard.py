"""Who is let in by the live page's server, and what its answers say of themselves."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from acted_run import NAMES, acted
from command import penult
from penult.errors import InputError
from penult.live.guard import Guard
from penult.live.keys import Keys, is_loopback
from penult.live.notebook import app
from penult.live.requests import name_of
from penult.live.server import LiveServer
from small_run import NET, images_for

HEADERS = ("content-security-policy", "x-content-type-options", "referrer-policy")
OFF = {"head": "dense", "edits": [{"edit": "off", "feature": 3}]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    run = acted(tmp_path_factory.mktemp("guarded"))
    server = LiveServer(run.folder, port=0)
    server.read()
    server.start()
    yield server
    server.stop()


class Asker:
    """Asks a server as no browser would."""

    def __init__(self, server: LiveServer) -> None:
        self.port, self.keys = server.keys.port, server.keys
        self.own = f"127.0.0.1:{self.port}"

    def __call__(
        self,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        method: str | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        sent = {"Host": self.own, "Cookie": f"{self.keys.cookie}={token or self.keys.token}"}
        raw: bytes | None = None
        if body is not None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent |= {"Content-Type": "application/json", "Origin": f"http://{self.own}"}
        sent |= headers or {}
        sent = {name: value for name, value in sent.items() if value}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(
                method or ("GET" if raw is None else "POST"), path, skip_host=True
            )
            if raw is not None and "Content-Length" not in sent:
                sent["Content-Length"] = str(len(raw))
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders()
            if raw is not None:
                connection.send(raw)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()
        finally:
            connection.close()


@pytest.fixture
def ask(served: LiveServer) -> Asker:
    return Asker(served)


def test_the_token_of_the_first_address_becomes_a_cookie_of_this_site(ask: Asker) -> None:
    status, headers, body = ask(f"/?token={ask.keys.token}", headers={"Cookie": ""})
    assert status == 200
    said = headers["set-cookie"].lower()
    assert f"penult-{ask.port}={ask.keys.token}".lower() in said
    assert "httponly" in said
    assert "samesite=strict" in said
    assert ask.keys.token.encode() not in body, "the address that the browser keeps has no token"


@pytest.mark.parametrize(
    "path", ["/", "/run/run/", "/run/run/api/alive", "/run/run/static/page.js"]
)
@pytest.mark.parametrize("cookie", ["", "x", "0" * 32])
def test_nobody_is_let_in_without_the_token(ask: Asker, path: str, cookie: str) -> None:
    found = ask(path, headers={"Cookie": cookie and f"{ask.keys.cookie}={cookie}"})
    assert found[0] == 401
    assert b"needs the address that `penult app` printed" in found[2]
    assert ask(f"/?token={cookie}", headers={"Cookie": ""})[0] == 401


@pytest.mark.parametrize(
    "host", ["evil.example:{}", "evil.example", "127.0.0.1", "127.0.0.1:1", "[::1", "a@evil:{}"]
)
def test_a_name_that_leads_here_is_refused(ask: Asker, host: str) -> None:
    status, _, body = ask("/run/run/api/alive", headers={"Host": host.format(ask.port)})
    assert status == 400
    assert b"under a name that is not its own" in body


def test_two_hosts_or_none_are_refused(ask: Asker) -> None:
    for lines in ("", f"Host: {ask.own}\r\nHost: evil\r\n"):
        with socket.create_connection(("127.0.0.1", ask.port), timeout=20) as found:
            cookie = f"{ask.keys.cookie}={ask.keys.token}"
            found.sendall(f"GET / HTTP/1.1\r\n{lines}Cookie: {cookie}\r\n\r\n".encode())
            assert b" 400 " in found.recv(4096).split(b"\r\n")[0]


def test_a_second_host_is_refused_whatever_server_lets_it_through() -> None:
    keys, said = Keys(8642), list[Any]()
    hosts = [(b"host", b"127.0.0.1:8642"), (b"host", b"evil.example")]
    cookie = (b"cookie", f"{keys.cookie}={keys.token}".encode())
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b""}

    async def nothing(*_: Any) -> Any:
        return {}

    async def send(message: Any) -> None:
        said.append(message.get("status"))

    for headers, status in ((hosts, 400), (hosts[:1], None)):
        said.clear()
        asyncio.run(Guard(nothing, keys)({**scope, "headers": [*headers, cookie]}, nothing, send))
        assert said[:1] == ([status] if status else [])


def test_samples_are_listed_in_order_by_any_writing_and_not_too_many(ask: Asker) -> None:
    def rows(asked: str) -> list[list[Any]]:
        found: list[list[Any]] = json.loads(ask(f"/run/run/api/samples?{asked}")[2])["rows"]
        return found

    low = [value for _, value in rows("feature=3&order=low")]
    high = [value for _, value in rows("feature=3")]
    assert low == sorted(low)
    assert high == sorted(high, reverse=True)
    assert low[0] < high[0]
    assert len(rows("limit=99999")) == 200
    assert rows("query=%3CU%3E11") == rows("query=%3Cu%3E11") != []


def test_a_value_that_no_feature_can_have_is_refused(ask: Asker) -> None:
    said = {"part": "eval", "sample": 1, "values": {"3": 1e39}}
    status, _, body = ask("/run/run/api/what-if", said)
    assert status == 400
    assert json.loads(body)["error"] == "feature 3: expected a number, found 1e+39"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["effect", "verdict", "write", "upload"])
def test_a_page_of_another_site_changes_nothing(
    ask: Asker, headers: dict[str, str], path: str
) -> None:
    status, _, body = ask(f"/run/run/api/{path}", {"state": OFF}, headers=headers)
    assert status == 403
    assert b"only pages of this server may ask this" in body


def test_a_form_of_another_kind_is_refused(ask: Asker) -> None:
    sent = {"Content-Type": "text/plain"}
    status, _, body = ask("/run/run/api/verdict", {"feature": 1}, headers=sent)
    assert (status, json.loads(body)["error"]) == (400, "expected application/json")


def test_every_answer_says_what_it_may_do(ask: Asker) -> None:
    for path in ("/run/run/", "/run/run/api/alive", "/nothing", "/run/run/static/page.js"):
        for token in (ask.keys.token, "x"):
            _, headers, _ = ask(path, token=token)
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "script-src 'self';" in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert "server" not in headers


@pytest.mark.parametrize(
    "path",
    [
        *("/run/../run/", "/run/%2e%2e/", "/run/..%2f..%2fetc/", "/run/run/static/..%2froutes.py"),
        *("/run/run/static/routes.py", "/run/run/image/..%2f/1", "/run/run/image/train/-1"),
        *("/run/run/download/..%2f..%2frun.json", "/run/other/", "/run/run/api/../../run.json"),
        *("/run/run/run.json", "/etc/passwd", "//etc/passwd", "/run/run/api/part/../1"),
    ],
)
def test_no_path_of_a_request_reaches_a_file(ask: Asker, path: str) -> None:
    status, headers, body = ask(path)
    assert status in (400, 404)
    if headers["content-type"].startswith("text/html"):
        assert b"<p>there is no run " in body
    else:
        assert set(json.loads(body)) == {"error"}


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/b", "a\\b", "..", ".", "", ".hidden", "x" * 99, "a\0b", "end."]
)
def test_no_name_of_a_request_leaves_the_run(ask: Asker, name: str) -> None:
    status, _, body = ask("/run/run/api/write", {"state": OFF, "name": name})
    assert status == 400
    assert json.loads(body)["error"].startswith("name: expected letters, digits, spaces, dots")


def test_large_bodies_are_refused_before_they_are_read(ask: Asker) -> None:
    sent = {"Content-Length": str(1 << 40)}
    status, _, body = ask("/run/run/api/effect", b"{", headers=sent)
    assert (status, json.loads(body)["error"].split(",")[0]) == (413, "expected at most 4 MiB")
    status, _, body = ask("/run/run/api/effect", b" " * ((4 << 20) + 1))
    assert status == 413


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b'{"state": 1}', b"\xff\xfe"])
def test_what_is_no_request_gets_one_line(ask: Asker, body: bytes) -> None:
    for path in ("effect", "compare", "what-if", "verdict", "write", "report"):
        status, _, answer = ask(f"/run/run/api/{path}", body)
        assert status == 400, path
        assert "\n" not in json.loads(answer)["error"]


def test_a_run_that_is_not_there_is_said_to_a_person(ask: Asker) -> None:
    status, headers, body = ask("/run/nope/")
    assert (status, headers["content-type"].split(";")[0]) == (404, "text/html")
    assert b"there is no run nope here" in body
    status, _, body = ask("/run/nope/api/alive")
    assert (status, json.loads(body)["error"]) == (404, "there is no run nope here")


def test_nothing_is_written_into_a_run_that_is_gone(tmp_path: Path) -> None:
    run = acted(tmp_path)
    server = LiveServer(run.folder, port=0)
    server.read()
    server.start()
    try:
        ask = Asker(server)
        assert ask("/run/run/api/effect", {"state": {}})[0] == 200
        shutil.rmtree(run.folder)
        for path, body in (
            ("verdict", {"feature": 1, "verdict": "core"}),
            ("write", {"state": OFF, "name": "x"}),
            ("find-suspects", {}),
        ):
            _, _, answer = ask(f"/run/run/api/{path}", body)
            assert b"the run is gone from" in answer, path
        assert not run.folder.exists()
        assert ask("/run/run/")[0] == 200, "what was read is still shown"
        status, _, answer = ask("/run/run/api/effect", {"state": OFF})
        assert status == 200, answer
    finally:
        server.stop()


@pytest.mark.parametrize("feature", ["9" * 5000, "\u0663", "-1", "1e3", ""])
def test_numbers_that_are_none_get_one_line(ask: Asker, feature: str) -> None:
    body = {"part": "eval", "sample": 0, "values": {feature: 1.0}}
    status, _, answer = ask("/run/run/api/what-if", body)
    assert status == 400
    assert "there is no feature" in json.loads(answer)["error"]
    if feature:
        status, _, answer = ask(f"/run/run/api/samples?feature={quote(feature)}")
        assert (status, json.loads(answer)["error"][:9]) == (400, "feature: ")


def test_a_run_that_cannot_be_read_says_why_until_it_is_mended(tmp_path: Path) -> None:
    run = acted(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(run.folder, broken)
    (broken / "moments.safetensors").write_bytes(b"no tensors")
    server = LiveServer(tmp_path, port=0)
    server.start()
    try:
        ask = Asker(server)
        assert b"broken" in ask("/")[2]

        def looked_at() -> tuple[int, bytes]:
            """What the page is once it is no more being read."""
            for _ in range(600):
                found, _, body = ask("/run/broken/")
                if b"Reading the run" not in body:
                    return found, body
                time.sleep(0.1)
            raise AssertionError("it is read for ever")

        status, body = looked_at()
        assert (status, b"moments.safetensors" in body) == (409, True)
        assert ask("/run/broken/")[0] == 409, "it is not read again and again"
        status, _, body = ask("/run/broken/api/alive")
        assert (status, b"moments.safetensors" in body) == (409, True)
        shutil.copy(run.moments_file, broken)
        status, body = looked_at()
        assert (status, b"data-document" in body) == (200, True)
    finally:
        server.stop()


def test_names_of_a_run_are_text_in_its_page(ask: Asker) -> None:
    status, _, body = ask("/run/run/")
    page = body.decode()
    assert status == 200
    for name in (*NAMES, "<script>alert", "<u>why", "<i>sex"):
        if "<" in name:
            assert name not in page, name
    assert "\\u003cimg src=x" in page


def test_an_address_with_the_token_lets_a_frame_in(served: LiveServer, ask: Asker) -> None:
    path = served.framed_address("run").split(ask.own)[1]
    status, headers, _ = ask(path, headers={"Cookie": ""})
    assert status == 200
    assert "frame-ancestors" not in headers["content-security-policy"]
    assert ask(f"{path}api/alive", headers={"Cookie": ""})[0] == 200
    wrong = path.replace(ask.keys.token, "x")
    assert ask(wrong, headers={"Cookie": ""})[0] == 401


def test_many_at_once_are_told_to_come_again_and_the_server_goes_on(ask: Asker) -> None:
    found: list[int] = []

    def many() -> None:
        for _ in range(10):
            try:
                found.append(ask("/run/run/api/alive")[0])
            except OSError:
                found.append(0)

    threads = [threading.Thread(target=many) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) <= {200, 503, 0}
    assert found.count(200) > 40
    assert ask("/run/run/api/alive")[0] == 200


@pytest.mark.parametrize("name", ["logits", "CON", "nul.txt", "Lpt1", "com9 .x", "PRN  "])
def test_no_name_of_a_request_is_a_device_or_a_file_of_the_run(ask: Asker, name: str) -> None:
    said = {"state": OFF, "name": name}
    status, _, body = ask("/run/run/api/write", said)
    assert status == 400
    assert "has a meaning of its own: choose another one" in json.loads(body)["error"]
    assert name_of({"name": "console"}) == "console"


def test_what_stands_behind_the_address_goes_on_to_the_page(ask: Asker) -> None:
    _, _, entered = ask(f"/?token={ask.keys.token}", headers={"Cookie": ""})
    assert b'<script src="static/enter.js">' in entered
    status, headers, body = ask("/static/enter.js")
    assert status == 200
    assert headers["content-type"].startswith("text/javascript")
    assert b"location.hash" in body


@pytest.mark.parametrize(
    ("host", "own", "is_own"),
    [
        ("127.0.0.1:8642", "127.0.0.1", True),
        ("localhost:8642", "127.0.0.1", True),
        ("[::1]:8642", "127.0.0.1", True),
        ("192.168.0.7:8642", "127.0.0.1", False),
        ("192.168.0.7:8642", "0.0.0.0", True),
        ("build.example:8642", "0.0.0.0", False),
        ("build.example:8642", "build.example", True),
        ("127.0.0.1:8643", "127.0.0.1", False),
        ("127.0.0.1:8642@evil", "127.0.0.1", False),
        ("", "127.0.0.1", False),
    ],
)
def test_which_names_are_the_servers_own(host: str, own: str, is_own: bool) -> None:
    assert Keys(8642, own).is_own(host) is is_own


def test_only_loopback_is_this_machine_alone() -> None:
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "::", "10.0.0.1", "a.example")] == [False] * 4


def test_a_port_in_use_is_passed_over(served: LiveServer, tmp_path: Path) -> None:
    second = LiveServer(served.shelf.folder("run"), port=served.keys.port)
    try:
        assert second.keys.port > served.keys.port
        assert second.taken == served.keys.port
    finally:
        second.start()
        second.stop()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"port": 99_999}, "--port: expected a number from 0 to 65535, found 99999"),
        ({"host": "203.0.113.9"}, "--host 203.0.113.9: cannot listen there"),
        ({"host": "no.such.name.invalid"}, "--host no.such.name.invalid: cannot listen there"),
    ],
)
def test_places_to_listen_that_there_are_not(
    served: LiveServer, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        LiveServer(served.shelf.folder("run"), **given)


def test_a_folder_without_runs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert penult("app", str(tmp_path), "--no-browser") == 2
    assert "is no run folder: it has no run.json" in capsys.readouterr().err


def test_a_run_of_images_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images_for(NET, tmp_path, monkeypatch)
    shown = app("run", port=0)
    try:
        html = shown._repr_html_()
        assert f'src="http://127.0.0.1:{shown.server.keys.port}/t/' in html
        ask = Asker(shown.server)
        status, headers, body = ask("/run/run/image/train/4?side=16")
        assert (status, headers["content-type"]) == (200, "image/webp")
        assert body.startswith(b"RIFF")
        sent = {"Content-Type": "image/webp"}
        status, _, news = ask("/run/run/api/upload?name=%3Cb%3E", body, headers=sent)
        result = json.loads(news.decode().split("event: result\ndata: ")[1])
        assert len(result["nearest"]) == 12
        number, far = result["nearest"][0]
        assert (number, far) == (4, pytest.approx(0, abs=0.05)), "the image itself is nearest"
        assert result["name"] == "<b>"
        j = result["decision"]["terms"][0][0]
        status, _, maps = ask(f"/run/run/api/maps?feature={j}&images=4,5")
        found = json.loads(maps)
        assert sorted(found["maps"]) == ["4", "5"]
        assert found["grid"] == [12, 12]
        assert found["maps"]["4"] == result["maps"][str(j)] or len(found["maps"]["4"]) == len(
            result["maps"][str(j)]
        )
        whole = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(whole, "PNG")
        cut = whole.getvalue()[: len(whole.getvalue()) // 2]
        for image, said in ((b"", "is empty"), (cut, "damaged"), (b"text", "no image")):
            _, _, news = ask("/run/run/api/upload", image, headers=sent)
            error = json.loads(news.decode().split("event: error\ndata: ")[1])["error"]
            assert error.startswith("the image"), error
            assert said in error
        shelf = shown.server.shelf.ready("run")
        assert shelf is not None
        assert shelf.shown.formats() == ["onnx", "torch", "safetensors", "head"]
        capped = {"head": "dense", "edits": [{"edit": "cap", "feature": 0, "at": 0.1}]}
        asked = {"state": capped, "name": "capped", "format": "safetensors"}
        _, _, news = ask("/run/run/api/write", asked)
        result = json.loads(news.decode().split("event: result\ndata: ")[1])
        assert result["folder"] == str(Path("run") / "edited" / "capped")
        assert any("there is no export, for" in note for note in result["notes"])
        assert (tmp_path / "run" / "edited" / "capped" / "recipe.json").is_file()
        (tmp_path / "data" / "a" / "00.png").unlink()
        status, _, body = ask("/run/run/image/train/0")
        assert (status, b"no longer" in body) == (400, True)
    finally:
        shown.stop()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("effect", b'{"state": {"edits": [{"edit": "off", "feature": 1, "reason": "\\ud800"}]}}'),
        ("write", b'{"state": {"head": "dense"}, "name": "x", "\\udfff": 1}'),
        ("sample/eval/1?state=%7B%22head%22:%22%5Cud800%22%7D", None),
    ],
)
def test_text_that_is_no_unicode_is_refused(ask: Asker, path: str, body: bytes | None) -> None:
    status, _, found = ask(f"/run/run/api/{path}", body)
    assert status == 400
    assert "holds text that is no Unicode" in json.loads(found)["error"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("images=1", "feature: expected its number"),
        ("feature=1&images=", "images: expected whole numbers with commas between them"),
        ("feature=1&images=1,,2", "images: expected whole numbers with commas between them"),
        ("feature=1&images=1,-2", "images: expected a whole number, found '-2'"),
        ("feature=1&images=" + ",".join(["1"] * 65), "expected a feature and 1 to 64 images"),
        ("feature=99&images=1", "expected a feature and 1 to 64 images"),
        ("feature=1&images=" + ",".join(["1499"] * 64), "the run has no network and images"),
    ],
)
def test_maps_are_asked_for_by_a_feature_and_some_images(ask: Asker, asked: str, why: str) -> None:
    status, _, body = ask(f"/run/run/api/maps?{asked}")
    assert status == 400
    assert json.loads(body)["error"].startswith(why)


def test_verdicts_that_somebody_has_spoiled_are_told_of_and_kept(tmp_path: Path) -> None:
    run = acted(tmp_path)
    server = LiveServer(run.folder, port=0)
    server.read()
    server.start()
    try:
        ask = Asker(server)
        file = run.folder / "verdicts.jsonl"
        before = file.read_bytes()
        file.write_bytes(before + b"nonsense\n")
        alive = json.loads(ask("/run/run/api/alive")[2])
        assert alive["verdicts"] == []
        assert "verdicts.jsonl: line 2 is no verdict" in alive["problem"]
        said = {"feature": 1, "class": 0, "verdict": "core", "note": ""}
        status, _, body = ask("/run/run/api/verdict", said)
        assert status == 400
        assert "line 2 is no verdict" in json.loads(body)["error"]
        assert file.read_bytes() == before + b"nonsense\n"
        file.write_bytes(before)
        alive = json.loads(ask("/run/run/api/alive")[2])
        assert (len(alive["verdicts"]), alive["problem"]) == (1, "")
    finally:
        server.stop()

"""Routes: what the live page's server answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route

from penult.errors import InputError, NotWrittenError
from penult.live.guard import Guard
from penult.live.images import USUAL_SIDE
from penult.live.keys import Keys
from penult.live.requests import (
    MOST_UPLOAD,
    TooLargeError,
    body_of,
    json_of,
    name_of,
    numbers,
    object_of,
    query_of,
    route_of,
    text,
    whole,
)
from penult.live.run_list import RunList
from penult.live.session import Listener, RunSession
from penult.live.shelf import RunShelf, UnknownRunError
from penult.live.shown_run import signature_of
from penult.live.streams import Streams, Work
from penult.live.worker import JobCancelledError
from penult.report import page
from penult.text import one_line

SIGNATURE = "X-Penult-Run"
# Of the live page alone, in this order, besides those of the report.
SCRIPTS = (
    *("net.js", "parts.js", "heat.js", "state.js", "effect.js", "switches.js", "dock.js"),
    *("saving.js", "samples.js", "what_if.js", "work.js", "begin.js"),
)
STYLES = ("live.css",)
_HERE = Path(__file__).parent

Handler = Callable[[Request, RunSession], Awaitable[Response]]


class LiveRoutes:
    """Answers requests about runs.

    Args:
        shelf: the runs.
        keys: of the server.
    """

    def __init__(self, shelf: RunShelf, keys: Keys) -> None:
        self._shelf = shelf
        self._listed = RunList()
        self._streams = Streams()
        api: dict[str, tuple[Handler, str]] = {
            "part/{kind}/{chunk:int}": (self._part, "GET"),
            "suspects": (self._suspects, "GET"),
            "maps": (self._maps, "GET"),
            "samples": (self._samples, "GET"),
            "alive": (self._alive, "GET"),
            "sample/{part}/{n:int}": (self._sample, "GET"),
            "effect": (self._effect, "POST"),
            "compare": (self._compare, "POST"),
            "what-if": (self._what_if, "POST"),
            "upload": (self._upload, "POST"),
            "verdict": (self._verdict, "POST"),
            "find-suspects": (self._find_suspects, "POST"),
            "write": (self._write, "POST"),
            "report": (self._report, "POST"),
        }
        routes = [
            Route("/", self._list),
            Route("/static/{name}", _static),
            Route("/run/{run}/", self._page),
            Route("/run/{run}/static/{name}", _static),
            Route("/run/{run}/image/{part}/{n:int}", self._on(self._image)),
            Route("/run/{run}/download/{id}", self._on(self._download)),
        ]
        routes += [
            Route(f"/run/{{run}}/api/{path}", self._on(handler), methods=[method])
            for path, (handler, method) in api.items()
        ]
        self.app = Guard(Starlette(routes=routes, exception_handlers=_ERRORS), keys)

    def close(self) -> None:
        """Wait for nobody."""
        self._streams.close()

    # Pages

    async def _list(self, request: Request) -> Response:
        folders = await run_in_threadpool(self._shelf.folders)
        if len(folders) == 1:
            return RedirectResponse(f"run/{quote(next(iter(folders)))}/", 303)
        rows = await run_in_threadpool(self._listed.rows, folders)
        items = "".join(
            f'<li><a href="run/{quote(name)}/"><bdi>{escape(one_line(name))}</bdi></a>'
            f'<p class="{"note" if good else "failed"}"><bdi>{escape(said)}</bdi></p></li>'
            for name, said, good in rows
        )
        if not items:
            return _plain("Runs", "<h1>Runs</h1><p>There are none in the folder any more.</p>")
        return _plain("Runs", f'<h1>Runs</h1><ul class="run-list">{items}</ul>')

    async def _page(self, request: Request) -> Response:
        name = request.path_params["run"]
        try:
            folder = await run_in_threadpool(self._shelf.folder, name)
        except UnknownRunError as error:
            link = '<p><a href="../../">What there is</a></p>'
            return _plain("No such run", f"<p>{escape(str(error))}</p>{link}", 404)
        session = self._shelf.ready(name)
        now = await run_in_threadpool(signature_of, folder)
        if session is None or (session.shown.signature != now and (folder / "run.json").is_file()):
            return self._reading(name)
        live = {"run": name, "runs": len(await run_in_threadpool(self._shelf.folders)),
                "signature": now}  # fmt: skip
        html = await run_in_threadpool(session.shown.page, live)
        return HTMLResponse(html, headers={SIGNATURE: now})

    def _reading(self, name: str) -> Response:
        """The page while a run is read; it asks again by itself."""
        failed = self._shelf.failure(name)
        if failed is not None:
            return _plain("Not read", f"<h1>{escape(name)}</h1><p>{escape(failed)}</p>", 409)
        if self._shelf.progress(name) is None:
            self._shelf.begin(name)
        done, total = self._shelf.progress(name) or (0, 0)
        how = f" ({done} of {total} passes)" if total else ""
        # A header would not do: browsers refresh no address with a fragment once it was reloaded.
        again = '<script src="static/again.js"></script>'
        text = f"<p>Reading the run <bdi>{escape(name)}</bdi>{how} …</p>"
        found = _plain("Reading", again + text)
        found.headers["Refresh"] = "2"
        return found

    # What pages ask for

    def _on(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Answers of a run that is being looked at."""

        async def answer(request: Request) -> Response:
            name = request.path_params["run"]
            session = self._shelf.ready(name)
            if session is None:
                folder = await run_in_threadpool(self._shelf.folder, name)
                why = await run_in_threadpool(self._shelf.failure, name)
                if why is not None:
                    return _failed(why, 409)
                if self._shelf.progress(name) is None:
                    self._shelf.begin(name)
                return _failed(f"the run {one_line(folder.name, 60)} is being read: wait", 409)
            response = await handler(request, session)
            now = await run_in_threadpool(signature_of, session.run.folder)
            response.headers[SIGNATURE] = now
            return response

        return answer

    async def _part(self, request: Request, session: RunSession) -> Response:
        path = request.path_params
        return await _json(session.shown.part, path["kind"], path["chunk"])

    async def _suspects(self, request: Request, session: RunSession) -> Response:
        return await _json(session.shown.suspects)

    async def _samples(self, request: Request, session: RunSession) -> Response:
        asked = dict(request.query_params)
        return await _json(session.samples, asked.get("part"), query_of(asked))

    async def _alive(self, request: Request, session: RunSession) -> Response:
        version = session.shown.verdicts_version()
        if request.query_params.get("version") == version:
            return JSONResponse({"version": version})
        try:
            verdicts, problem = await run_in_threadpool(session.shown.verdicts), ""
        except InputError as error:
            verdicts, problem = [], str(error)
        return JSONResponse({"version": version, "verdicts": verdicts, "problem": problem})

    async def _image(self, request: Request, session: RunSession) -> Response:
        path = request.path_params
        side = whole(dict(request.query_params), "side", USUAL_SIDE) or USUAL_SIDE
        found = await run_in_threadpool(session.pictures.picture, path["part"], path["n"], side)
        kind = "image/png" if found.startswith(b"\x89") else "image/webp"
        return Response(found, media_type=kind, headers={"Cache-Control": "private, max-age=600"})

    async def _maps(self, request: Request, session: RunSession) -> Response:
        asked = dict(request.query_params)
        feature = whole(asked, "feature")
        if feature is None:
            raise InputError("feature: expected its number")
        work: Work = partial(_called, session.maps, feature, numbers(asked, "images"))
        return await self._streams.waited(request, work)

    async def _sample(self, request: Request, session: RunSession) -> Response:
        path, query = request.path_params, request.query_params
        given = object_of(query.get("state", "{}"), "state")
        state, of = session.state(given), whole(dict(query), "of")

        def answer() -> dict[str, Any]:
            number = session.shown.table.number(path["part"], path["n"])
            decision = session.decided(state, (path["part"], path["n"]), {}, of)
            images = session.shown.images_of({number})
            return {"image": images[number], "image_number": number, "decision": decision}

        return await _json(answer)

    async def _what_if(self, request: Request, session: RunSession) -> Response:
        found = await json_of(request)
        state, values = session.state(found.get("state", {})), found.get("values", {})
        if not isinstance(values, Mapping):
            raise InputError("values: expected numbers by feature")
        at: tuple[str, int] | str = text(found, "upload")
        if not at:
            at = text(found, "part"), whole(found, "sample", 0) or 0
        of = whole(found, "of")
        return await _json(lambda: {"decision": session.decided(state, at, values, of)})

    async def _effect(self, request: Request, session: RunSession) -> Response:
        found = await json_of(request)
        state, name = session.state(found.get("state")), text(found, "name", "now")
        work: Work = lambda asked: session.switched(None, state, name, asked)  # noqa: E731
        if session.board.is_quick(state):
            return await _json(work, Listener())
        return await self._streams.streamed(work)

    async def _compare(self, request: Request, session: RunSession) -> Response:
        found = await json_of(request)
        before, after = session.state(found.get("before")), session.state(found.get("after"))
        name = text(found, "name", "now")
        work: Work = lambda asked: session.switched(before, after, name, asked)  # noqa: E731
        if session.board.is_quick(before, after):
            return await _json(work, Listener())
        return await self._streams.streamed(work)

    async def _upload(self, request: Request, session: RunSession) -> Response:
        raw = await body_of(request, MOST_UPLOAD)
        if not request.headers.get("content-type", "").startswith("image/"):
            raise InputError("expected an image")
        name = text(dict(request.query_params), "name", "your image")
        state = session.state(object_of(request.query_params.get("state", "{}"), "state"))
        return await self._streams.streamed(partial(_called, session.upload, raw, name, state))

    async def _verdict(self, request: Request, session: RunSession) -> Response:
        found = await json_of(request)
        feature = whole(found, "feature")
        if feature is None:
            raise InputError("feature: expected its number")
        given = feature, whole(found, "class"), text(found, "verdict"), text(found, "note")
        return await _json(lambda: {"verdicts": session.judge(*given)})

    async def _find_suspects(self, request: Request, session: RunSession) -> Response:
        await json_of(request)
        return await self._streams.streamed(session.find_suspects)

    async def _write(self, request: Request, session: RunSession) -> Response:
        found = await json_of(request)
        state, name = session.state(found.get("state")), name_of(found)
        format = text(found, "format") or None
        return await self._streams.streamed(partial(_called, session.write, state, name, format))

    async def _report(self, request: Request, session: RunSession) -> Response:
        found = await json_of(request)
        state, name = session.state(found.get("state")), text(found, "name", "now")
        work: Work = partial(_called, session.report, state, name, route_of(found))
        return await self._streams.streamed(work)

    async def _download(self, request: Request, session: RunSession) -> Response:
        place = session.page_of(request.path_params["id"])
        name = f"{session.run.folder.resolve().name}.html"
        headers = {"Content-Security-Policy": "sandbox"}
        return FileResponse(place, media_type="text/html", filename=name, headers=headers)


def _called(function: Callable[..., Any], *given: Any) -> Any:
    return function(*given)


async def _json(function: Callable[..., Any], *given: Any) -> Response:
    found = await run_in_threadpool(function, *given)
    return JSONResponse(found)


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        return _failed("there is no such file", 404)
    kind, made = _STATIC[name]
    return Response(made(), media_type=kind, headers={"Cache-Control": "no-cache"})


def _script() -> str:
    return page.script([(_HERE / name).read_text(encoding="utf-8") for name in SCRIPTS])


def _style() -> str:
    return "\n".join([page.style(), *((_HERE / name).read_text("utf-8") for name in STYLES)])


_STATIC: Mapping[str, tuple[str, Callable[[], str]]] = {
    "page.js": ("text/javascript", _script),
    "first.js": ("text/javascript", page.first),
    "again.js": ("text/javascript", (_HERE / "again.js").read_text),
    "enter.js": ("text/javascript", (_HERE / "enter.js").read_text),
    "page.css": ("text/css", _style),
}


def _plain(title: str, body: str, status: int = 200) -> Response:
    """A page without script."""
    html = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title} · penult</title>'
        '<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width">'
        '<link rel="stylesheet" href="static/page.css">'
        f'<body class="written"><main>{body}</main></body></html>'
    )
    return HTMLResponse(html, status)


def _failed(text: str, status: int) -> Response:
    return JSONResponse({"error": text}, status)


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, TooLargeError):
        return _failed(str(error), 413)
    status = 409 if isinstance(error, NotWrittenError) else 400
    if isinstance(error, UnknownRunError):
        status = 404
    return _failed(str(error), status)


async def _cancelled(request: Request, error: Exception) -> Response:
    return _failed("cancelled", 499)


async def _not_there(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _failed("there is nothing here" if status == 404 else "not like this", status)


async def _broken(request: Request, error: Exception) -> Response:
    return _failed(f"{type(error).__name__}: {one_line(str(error))}", 500)


_ERRORS: Mapping[Any, Any] = {
    InputError: _refused,
    JobCancelledError: _cancelled,
    404: _not_there,
    405: _not_there,
    Exception: _broken,
}

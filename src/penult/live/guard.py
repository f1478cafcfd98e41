"""Guard: who may ask the live page's server, and what every answer says of itself."""

from __future__ import annotations

from collections.abc import MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penult.live.keys import Keys

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
FRAMED = "/t/"  # addresses that hold the token themselves, for frames to which cookies do not come
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CLOSED = "this page needs the address that `penult app` printed, with its token: open that one"
# A redirect would not do: after a link in another page, cookies of this site do not come along.
ENTERED = (
    '<!doctype html><link rel="icon" href="data:,">'
    '<title>penult</title><script src="static/enter.js"></script>'
    '<noscript><meta http-equiv="refresh" content="0; url=./"></noscript>'
)


class Guard:
    """Lets in who has the token, from pages of this server only.

    Args:
        app: what answers those that are let in.
        keys: what they need.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there are no web sockets here
        framed = scope["path"].startswith(FRAMED)
        outgoing = _with_headers(send, framed)
        refused = self._refused(scope, framed)
        if refused is not None:
            await refused(scope, receive, outgoing)
        else:
            await self._app(_unframed(scope) if framed else scope, receive, outgoing)

    def _refused(self, scope: Scope, framed: bool) -> Response | None:
        """The answer to who is not let in, or has only just been; None to all others."""
        headers, keys = Headers(scope=scope), self._keys
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not keys.is_own(hosts[0]):
            return _error(400, "this server is asked under a name that is not its own")
        origin = headers.get("origin")
        changes = scope["method"] not in ("GET", "HEAD")
        if changes and origin not in (f"http://{hosts[0]}", f"https://{hosts[0]}"):
            return _error(403, "only pages of this server may ask this")
        if headers.get("sec-fetch-site") == "cross-site" and scope["path"] != "/" and not framed:
            return _error(403, "only pages of this server may ask this")
        if framed:
            token = scope["path"][len(FRAMED) :].partition("/")[0]
            return None if keys.fits(token) else _closed(scope)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if given is not None and scope["path"] == "/" and keys.fits(given[0]):
            response = HTMLResponse(ENTERED)
            response.set_cookie(keys.cookie, keys.token, path="/", httponly=True, samesite="strict")
            return response
        return None if keys.fits(_cookie(headers, keys.cookie)) else _closed(scope)


def _cookie(headers: Headers, name: str) -> str:
    """The value of a cookie, "" without."""
    for line in headers.getlist("cookie"):
        found: SimpleCookie = SimpleCookie()
        try:
            found.load(line)
        except CookieError:
            continue
        if name in found:
            return found[name].value
    return ""


def _unframed(scope: Scope) -> Scope:
    """A request without the token in its path."""
    path = "/" + scope["path"][len(FRAMED) :].partition("/")[2]
    return {**scope, "path": path, "raw_path": path.encode()}


def _with_headers(send: Send, framed: bool) -> Send:
    """Sends answers with what they must say of themselves."""
    policy = POLICY if framed else f"{POLICY}; frame-ancestors 'none'"

    async def outgoing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=_mutable(message))
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Content-Security-Policy", policy)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return outgoing


def _mutable(message: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    message["headers"] = list(message.get("headers", ()))
    return message


def _closed(scope: Scope) -> Response:
    if scope["path"].rpartition("/")[2] == "" or "/api/" not in scope["path"]:
        text = f"<!doctype html><title>penult</title><p>{CLOSED[0].upper()}{CLOSED[1:]}.</p>"
        return HTMLResponse(text, 401)
    return _error(401, CLOSED)


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)

"""LiveServer: the server of the live page, on a port of this machine, until it is stopped."""

from __future__ import annotations

import errno
import ipaddress
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import uvicorn

from penult.errors import InputError
from penult.live.guard import FRAMED
from penult.live.keys import Keys
from penult.live.routes import LiveRoutes
from penult.live.session import RunSession
from penult.live.shelf import RunShelf
from penult.progress import Progress
from penult.runs.reopen import Places

FIRST_PORT = 8642
PORTS = 100  # that are tried one after the other
MOST_AT_ONCE = 256  # connections; who comes later is told to come again
BEFORE_STOPPED = 2  # seconds that a stopped server gives to open requests


class LiveServer:
    """Serves the live pages of a run, or of all runs in a folder.

    Args:
        place: a run, or a folder of runs.
        host: address to listen on; others than this machine's own let others in.
        port: to listen on, or the next one that is free; the first free one from 8642 where None.
        places: where network and data are now.
        device: where the network runs.

    Attributes:
        keys: port and token.
        taken: the port that was asked for and is in use; None where it was free.

    Raises:
        InputError: no run there, no such address, no free port.
    """

    def __init__(
        self,
        place: Path,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        places: Places | None = None,
        device: str = "cpu",
    ) -> None:
        where = places or Places()

        def open_session(folder: Path, progress: Progress) -> RunSession:
            return RunSession(folder, where, device, progress)

        self.shelf = RunShelf(place, open_session)
        self._socket = _listening(host, port)
        self.host = host
        own = int(self._socket.getsockname()[1])
        self.taken = port if port not in (None, 0, own) else None
        self.keys = Keys(own, host)
        self._routes = LiveRoutes(self.shelf, self.keys)
        config = uvicorn.Config(
            self._routes.app,
            log_level="critical",
            access_log=False,
            lifespan="off",
            limit_concurrency=MOST_AT_ONCE,
            timeout_graceful_shutdown=BEFORE_STOPPED,
            server_header=False,
            ws="none",
        )
        self._server = _Server(config)
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """What a browser opens, with the token."""
        return f"{self._site()}/?token={self.keys.token}"

    def framed_address(self, run: str) -> str:
        """The address of a run for a frame in another page, to which cookies may not come."""
        return f"{self._site()}{FRAMED}{self.keys.token}/run/{quote(run)}/"

    def _site(self) -> str:
        # To listen on all addresses is no address to open.
        name = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://{f'[{name}]' if ':' in name else name}:{self.keys.port}"

    def read(self, progress: Progress | None = None) -> None:
        """Read the run now, if there is only one, and not when its page is opened.

        Raises:
            InputError: it cannot be read.
        """
        folders = self.shelf.folders()
        if len(folders) == 1:
            session = self.shelf.read(next(iter(folders)), progress)
            if session is not None:
                threading.Thread(target=session.warm, daemon=True).start()

    def serve(self) -> None:
        """Answer until Ctrl-C, or `stop` from another thread."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self._routes.close()
            self.shelf.close()

    def start(self) -> None:
        """Answer in a thread of its own."""
        self._thread = threading.Thread(target=self.serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer no more, and leave nothing behind."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()


class _Server(uvicorn.Server):
    """A server that ends on Ctrl-C like any other command: what comes after it is still done."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on signals; they are not sent again afterwards, as they are by default."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {one: signal.signal(one, self.handle_exit) for one in signals}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def _listening(host: str, port: int | None) -> socket.socket:
    """A socket on the first free port.

    Raises:
        InputError: none is free; no such address; a port that is none.
    """
    first = FIRST_PORT if port is None else port
    if not 0 <= first < 1 << 16:
        raise InputError(f"--port: expected a number from 0 to 65535, found {port}")
    family = socket.AF_INET6 if _is_v6(host) else socket.AF_INET
    error: OSError | None = None
    for number in range(first, min(first + PORTS, 1 << 16)):
        found = socket.socket(family, socket.SOCK_STREAM)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((host, number))
            found.listen(512)
            return found
        except OSError as this:
            found.close()
            error = this
            if this.errno not in (errno.EADDRINUSE, errno.EACCES):
                break
    assert error is not None
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
        last = min(first + PORTS, 1 << 16) - 1
        raise InputError(f"no port from {first} to {last} is free on {host}: give --port NUMBER")
    raise InputError(
        f"--host {host}: cannot listen there ({error.strerror or error}): expected an address of "
        "this machine, such as 127.0.0.1"
    )


def _is_v6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False

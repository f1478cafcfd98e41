"""Streams: answers that take long, their news as they come, and their end where nobody waits."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from penult.errors import InputError
from penult.live.session import Listener
from penult.live.worker import JobCancelledError
from penult.text import one_line

APART = 0.1  # seconds between two news of a stage
ALIVE = 10.0  # seconds without news after which a stream says that it goes on
MOST_STREAMS = 16

Work = Callable[[Listener], Any]


class Streams:
    """Does what takes long in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MOST_STREAMS, "penult-app")
        self._n_streams = 0

    def close(self) -> None:
        """Wait for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def streamed(self, work: Work) -> Response:
        """The news of a job as they come, then its result; who leaves cancels it."""
        if self._n_streams >= MOST_STREAMS:
            return JSONResponse({"error": "the server has too much to do: ask again later"}, 503)
        return StreamingResponse(self._news(work), media_type="text/event-stream")

    async def waited(self, request: Request, work: Work) -> Response:
        """The result of a job alone; who leaves cancels it."""
        asked = Listener()
        loop = asyncio.get_running_loop()
        found = loop.run_in_executor(None, work, asked)
        found.add_done_callback(_looked_at)
        try:
            while True:
                done, _ = await asyncio.wait([found], timeout=APART)
                if done:
                    return JSONResponse(found.result())
                if await request.is_disconnected():
                    raise JobCancelledError
        finally:
            asked.cancelled.set()

    async def _news(self, work: Work) -> AsyncGenerator[str]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        last = 0.0

        def put(kind: str, found: Any) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (kind, found))

        def told(name: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= APART or not done:
                last = time.monotonic()
                put("progress", {"name": name, "done": done, "all": total})

        asked = Listener(told)

        def run() -> None:
            try:
                put("result", work(asked) or {})
            except JobCancelledError:
                put("error", {"error": "cancelled"})
            except InputError as error:
                put("error", {"error": str(error)})
            except Exception as error:  # or the page would wait for ever
                put("error", {"error": f"{type(error).__name__}: {one_line(str(error))}"})

        self._n_streams += 1
        try:
            self._threads.submit(run)
            kind = ""
            while kind not in ("result", "error"):
                try:
                    kind, found = await asyncio.wait_for(queue.get(), ALIVE)
                except TimeoutError:
                    yield ": at work\n\n"
                    continue
                yield f"event: {kind}\ndata: {json.dumps(found)}\n\n"
        finally:
            self._n_streams -= 1
            asked.cancelled.set()


def _looked_at(found: asyncio.Future[Any]) -> None:
    """A job that nobody waits for any more fails in silence."""
    if not found.cancelled():
        found.exception()

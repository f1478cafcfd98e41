"""Answers that take long: their news, their result, and their end where nobody waits."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from penult.errors import InputError
from penult.live.session import Listener
from penult.live.streams import Streams, Work


async def news_of(work: Work) -> list[tuple[str, Any]]:
    """All that a stream says, as (event, data)."""
    streams = Streams()
    said = []
    async for block in streams._news(work):
        event, data = block.strip().split("\n")
        said.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    streams.close()
    return said


def test_stages_come_before_the_result() -> None:
    def work(asked: Listener) -> dict[str, int]:
        heard = asked.stage("counting")
        heard(0, 2)
        heard(2, 2)
        return {"n": 2}

    said = asyncio.run(news_of(work))
    assert said[0] == ("progress", {"name": "counting", "done": 0, "all": 2})
    assert said[-1] == ("result", {"n": 2})


@pytest.mark.parametrize(
    ("error", "line"),
    [(InputError("a line"), "a line"), (KeyError("x"), "KeyError: 'x'")],
)
def test_what_fails_says_why(error: Exception, line: str) -> None:
    def work(asked: Listener) -> None:
        raise error

    assert asyncio.run(news_of(work)) == [("error", {"error": line})]


def test_who_leaves_cancels_the_work() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(asked: Listener) -> None:
        begun.set()
        asked.stage("waiting")(0, 1)
        if asked.cancelled.wait(30):
            ended.set()

    async def leave() -> None:
        streams = Streams()
        news = streams._news(work)
        await anext(news)
        await news.aclose()
        streams.close()

    asyncio.run(leave())
    assert begun.is_set()
    assert ended.wait(30)


def test_who_comes_when_all_threads_are_at_work_is_told_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penult.live.streams.MOST_STREAMS", 1)
    leave = threading.Event()

    def work(asked: Listener) -> None:
        asked.stage("waiting")(0, 1)
        leave.wait(30)

    async def two() -> tuple[int, int]:
        streams = Streams()
        news = streams._news(work)
        await anext(news)
        refused = await streams.streamed(work)
        leave.set()
        await news.aclose()
        again = await streams.streamed(work)
        streams.close()
        return refused.status_code, again.status_code

    assert asyncio.run(two()) == (503, 200)

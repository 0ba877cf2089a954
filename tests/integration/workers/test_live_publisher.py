"""Text on its way, to a Redis that hangs, and past what nobody has thought of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from chat_backend.config import Settings
from chat_backend.realtime.connection import COMMAND_SECONDS
from chat_backend.realtime.live_text import read_live_texts
from tests.support.valkey import Valkey
from workers.live_publisher import MOST_AT_ONCE, MOST_CHARACTERS_AT_ONCE, LivePublisher, LiveReply


@pytest.fixture
def settings(valkey: Valkey) -> Iterator[Settings]:
    yield Settings.from_environment({"AUTH_MODE": "dev", "REDIS_URL": valkey.url})
    valkey.thaw()


@asynccontextmanager
async def publishing(settings: Settings) -> AsyncIterator[tuple[LivePublisher, asyncio.Future[None]]]:
    """A publisher at work."""
    publisher = LivePublisher(settings)
    running = asyncio.ensure_future(publisher.run())
    yield publisher, running
    running.cancel()
    await asyncio.wait([running])
    await publisher.aclose()


def _reply(publisher: LivePublisher) -> LiveReply:
    return LiveReply(uuid4(), uuid4(), 1, publisher)


def test_the_end_of_a_reply_hardly_waits_for_a_redis_that_hangs(valkey: Valkey, settings: Settings) -> None:
    async def finish() -> float:
        async with publishing(settings) as (publisher, _):
            live = _reply(publisher)
            valkey.freeze()
            live.write("the last of it")
            began = time.monotonic()
            await publisher.finish(live)
            took = time.monotonic() - began
            valkey.thaw()
        return took

    took = asyncio.run(finish())

    assert took < COMMAND_SECONDS, "it waited until Redis was given up"


class _Broken(LiveReply):
    @property
    def pending(self) -> bool:
        raise RuntimeError("nobody has thought of this")


def test_the_one_publisher_outlives_a_reply_that_can_not_be_published(valkey: Valkey, settings: Settings) -> None:
    async def publish() -> str:
        async with publishing(settings) as (publisher, running):
            publisher.wanted(_Broken(uuid4(), uuid4(), 1, publisher))
            live = _reply(publisher)
            live.write("all the same")
            deadline = time.monotonic() + 10
            while live.pending and not running.done() and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
        with valkey.client() as client:
            return read_live_texts(client, [(live.message_id, live.attempt)])[0]

    assert asyncio.run(publish()) == "all the same"


def test_what_somebody_else_put_in_a_reply_s_place_holds_up_no_text(valkey: Valkey, settings: Settings) -> None:
    async def publish() -> None:
        async with publishing(settings) as (publisher, _):
            lives = [_reply(publisher) for _ in range(2)]
            with valkey.client() as client:
                client.rpush(lives[0].key, "another kind of value")
                for live in lives:
                    live.write("all the same")
                async with asyncio.timeout(10):
                    while read_live_texts(client, [(live.message_id, 1) for live in lives]) != ["all the same"] * 2:
                        await asyncio.sleep(0.01)

    asyncio.run(publish())


def test_one_publish_takes_so_many_replies_and_so_many_characters(settings: Settings) -> None:
    publisher = LivePublisher(settings)
    many = [_reply(publisher) for _ in range(MOST_AT_ONCE + 5)]
    for live in many:
        live.write("x")
    first, rest = publisher._next_batch(), publisher._next_batch()
    large = [_reply(publisher) for _ in range(5)]
    for live in large:
        live.write("x" * (MOST_CHARACTERS_AT_ONCE // 4))

    by_size = publisher._next_batch()

    assert (len(first), len(rest), len(by_size)) == (MOST_AT_ONCE, 5, 4)

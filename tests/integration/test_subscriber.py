"""A process's one subscription, to a Redis that hangs and cuts it off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from chat_backend.config import Settings
from chat_backend.realtime.subscriber import CONFIRMATION_SECONDS, Subscriber
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


@dataclass
class Heard:
    """What a subscriber has handed on."""

    messages: list[tuple[str, bytes]] = field(default_factory=list)
    gaps: int = 0

    def receive(self, channel: str, data: bytes) -> None:
        self.messages.append((channel, data))

    def lost_touch(self) -> None:
        self.gaps += 1


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def subscriber(valkey: Valkey, heard: Heard) -> Iterator[Subscriber]:
    settings = Settings.from_environment({"AUTH_MODE": "dev", "REDIS_URL": valkey.url})
    made = Subscriber(settings, receive=heard.receive, lost_touch=heard.lost_touch)
    made.start()
    wait_until(lambda: heard.gaps, why="the subscription is there")
    yield made
    valkey.thaw()
    made.stop()


def _channels(valkey: Valkey) -> set[str]:
    with valkey.client() as client:
        return {name.decode() for name in client.pubsub_channels()}


def _say(valkey: Valkey, channel: str) -> int:
    with valkey.client() as client:
        return int(client.publish(channel, "hello"))


def test_nothing_is_remembered_of_channels_that_were_left(valkey: Valkey, subscriber: Subscriber) -> None:
    for number in range(100):
        assert subscriber.subscribe(f"test:{number}")
        subscriber.unsubscribe(f"test:{number}")
    assert subscriber.subscribe("test:last")

    wait_until(lambda: _channels(valkey) == {"chat:anchor", "test:last"}, why="they are left")

    wait_until(lambda: len(subscriber._pubsub.channels) == 2, why="they are forgotten")


def test_after_a_cut_what_came_and_went_meanwhile_is_made_good(
    valkey: Valkey, subscriber: Subscriber, heard: Heard
) -> None:
    for number in range(10):
        subscriber.subscribe(f"test:{number}")
    before = heard.gaps

    with valkey.client() as client:
        client.client_kill_filter(_type="pubsub")
    subscriber.unsubscribe("test:0")
    subscriber.subscribe("test:new")
    wait_until(lambda: heard.gaps > before, why="it is connected again")

    expected = {"chat:anchor", "test:new", *(f"test:{number}" for number in range(1, 10))}
    wait_until(lambda: _channels(valkey) == expected, why="the server knows what is wanted")


def test_a_cut_costs_one_new_connection(valkey: Valkey, subscriber: Subscriber, heard: Heard) -> None:
    before = heard.gaps
    with valkey.client() as client:
        connections = client.info("stats")["total_connections_received"]

        client.client_kill_filter(_type="pubsub")
        wait_until(lambda: heard.gaps > before, why="it is connected again")

        assert client.info("stats")["total_connections_received"] == connections + 1


def test_a_newcomer_keeps_the_channel_that_the_last_one_lets_go(valkey: Valkey, subscriber: Subscriber) -> None:
    subscriber.subscribe("test:one")

    subscriber.unsubscribe("test:one", unless=lambda: True)

    assert subscriber.subscribe("test:one")
    assert _say(valkey, "test:one") == 1


def test_a_redis_that_hangs_costs_one_newcomer_its_wait_and_what_they_missed_is_looked_up(
    valkey: Valkey, subscriber: Subscriber, heard: Heard
) -> None:
    before = heard.gaps
    valkey.freeze()

    began = time.monotonic()
    confirmed = [subscriber.subscribe(f"test:{number}") for number in range(20)]
    took = time.monotonic() - began
    valkey.thaw()

    wait_until(lambda: heard.gaps > before, why="the late confirmation is taken for a gap")
    assert not any(confirmed)
    assert took < 5 * CONFIRMATION_SECONDS
    wait_until(lambda: _say(valkey, "test:19") and heard.messages, why="what is said arrives")

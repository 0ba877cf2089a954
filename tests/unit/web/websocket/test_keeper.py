"""The keeper: looks in time however often it is called, forgets nothing, and one feed's trouble is its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest

from chat_backend.config import Settings
from chat_backend.domain.cursor import Cursor
from chat_backend.domain.errors import Unavailable
from chat_backend.domain.user import User
from chat_backend.realtime.channels import session_channel
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.feed import Feed, Truth
from chat_backend.web.websocket.keeper import MEMBERS_AT_ONCE, Keeper
from tests.support.session_world import PaperOutbox
from tests.support.waiting import wait_until

INTERVAL_SECONDS = 2.0


@dataclass
class PaperReader:
    """A database that says what it is told to, and remembers when it was asked."""

    current: dict[UUID, int] = field(default_factory=dict)
    looks: list[float] = field(default_factory=list)
    refreshed: list[UUID] = field(default_factory=list)
    away: int = 0
    broken: set[UUID] = field(default_factory=set)
    members: dict[tuple[UUID, str], str] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def cursors(self, session_ids: Sequence[UUID]) -> dict[UUID, Cursor]:
        if self.away:
            self.away -= 1
            raise Unavailable("away", retry_after_seconds=1)
        self.looks.append(time.monotonic())
        return {id: Cursor(self.current[id]) for id in session_ids if id in self.current}

    def refresh(self, feed: Feed) -> None:
        if feed.session_id in self.broken:
            raise RuntimeError("nobody has thought of this")
        self.refreshed.append(feed.session_id)
        feed.needs_refresh, feed.needs_tick = False, True

    def roles(self, members: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], str]:
        self.asked.append(len(members))
        return {member: self.members[member] for member in members if member in self.members}


@dataclass
class Kept:
    """A keeper at work, and what it knows."""

    reader: PaperReader
    feeds: dict[str, Feed]
    keeper: Keeper
    ticked: threading.Event
    connections: dict[str, Connection]

    def add(self, *, offset: int) -> Feed:
        """A feed that knows nothing yet of a log that goes so far."""
        feed = Feed(uuid4(), typing_seconds=5)
        feed.reconcile(Truth(0, [], []))
        self.reader.current[feed.session_id] = offset
        self.feeds[session_channel(feed.session_id)] = feed
        return feed


@pytest.fixture
def kept() -> Kept:
    settings = Settings.from_environment({"AUTH_MODE": "dev", "CATCH_UP_SECONDS": str(INTERVAL_SECONDS)})
    reader, feeds, connections, ticked = PaperReader(), dict[str, Feed](), dict[str, Connection](), threading.Event()
    keeper = Keeper(settings, reader, feeds=feeds, connections=connections, hears=lambda: True, tick=ticked.set)  # type: ignore[arg-type]
    return Kept(reader, feeds, keeper, ticked, connections)


@pytest.fixture
def work(kept: Kept) -> Iterator[Callable[[], None]]:
    """Let the keeper work until the test is over."""
    stopping = threading.Event()
    thread = threading.Thread(target=kept.keeper.run, args=(stopping,))
    yield thread.start
    stopping.set()
    kept.keeper.poke()
    thread.join(10)


def test_who_calls_it_does_not_put_off_its_next_look(kept: Kept, work: Callable[[], None]) -> None:
    kept.add(offset=0)
    work()
    first = wait_until(lambda: kept.reader.looks)[0]

    wait_until(lambda: time.monotonic() - first > 0.8 * INTERVAL_SECONDS, why="some time has gone by")
    kept.keeper.poke()
    second = wait_until(lambda: kept.reader.looks[1:], why="it looks again")[0]

    assert INTERVAL_SECONDS <= second - first < 1.5 * INTERVAL_SECONDS


def test_a_gap_is_not_forgotten_where_the_database_is_away_as_it_is_looked_for(
    kept: Kept, work: Callable[[], None]
) -> None:
    feed = kept.add(offset=5)
    kept.reader.away = 1

    kept.keeper.lost_touch()
    work()

    # Without the word of a gap two looks more are needed.
    wait_until(lambda: kept.reader.refreshed == [feed.session_id], seconds=INTERVAL_SECONDS)


def test_what_a_refresh_leaves_to_be_sent_is_sent_at_once(kept: Kept, work: Callable[[], None]) -> None:
    feed = kept.add(offset=0)
    work()
    wait_until(lambda: kept.reader.looks)

    feed.needs_refresh = True
    kept.keeper.poke()

    assert kept.ticked.wait(0.75 * INTERVAL_SECONDS)


def test_a_feed_that_fails_holds_up_no_other(kept: Kept, work: Callable[[], None]) -> None:
    bad, good = kept.add(offset=5), kept.add(offset=5)
    kept.reader.broken = {bad.session_id}
    bad.needs_refresh = True

    kept.keeper.lost_touch()
    work()

    wait_until(lambda: kept.reader.refreshed == [good.session_id])


def _watch(kept: Kept, feed: Feed, user: str, role: str) -> tuple[Connection, PaperOutbox]:
    outbox = PaperOutbox()
    connection = Connection(feed.session_id, User(user), outbox, role=role)
    feed.connections[connection.id] = kept.connections[connection.id] = connection
    kept.reader.members[feed.session_id, user] = role
    return connection, outbox


def test_removals_and_roles_are_enforced_without_any_event(kept: Kept, work: Callable[[], None]) -> None:
    broken, feed = kept.add(offset=5), kept.add(offset=0)
    kept.reader.broken = {broken.session_id}
    broken.needs_refresh = True
    (removed, closed), (demoted, open_) = _watch(kept, broken, "ann", "member"), _watch(kept, feed, "bob", "member")
    work()

    del kept.reader.members[broken.session_id, "ann"]
    kept.reader.members[feed.session_id, "bob"] = "viewer"

    wait_until(lambda: closed.closed_with == 4403 and demoted.role == "viewer", seconds=10)
    assert removed.id not in broken.connections
    assert open_.closed_with is None


def test_roles_of_many_connections_are_read_in_portions(kept: Kept, work: Callable[[], None]) -> None:
    feed = kept.add(offset=0)
    for number in range(2 * MEMBERS_AT_ONCE + 1):
        _watch(kept, feed, f"user {number}", "member")
    work()

    wait_until(lambda: len(kept.reader.asked) >= 3)
    assert kept.reader.asked[:3] == [MEMBERS_AT_ONCE, MEMBERS_AT_ONCE, 1]

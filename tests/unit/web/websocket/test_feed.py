"""A feed: whatever is lost, doubled or out of order on the way, its viewers end with the truth."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_backend.domain.cursor import Cursor
from chat_backend.domain.user import User
from chat_backend.models.base import now
from chat_backend.protocol.envelope import Delta, Durable
from chat_backend.protocol.events import encode, framed
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.feed import REMEMBERED_BYTES, REMEMBERED_ENDS, REMEMBERED_EVENTS, Feed
from chat_backend.web.websocket.joining import JOIN_TRIES, attach
from chat_backend.web.websocket.reader import Log
from tests.support.chat import Viewer
from tests.support.session_world import PaperOutbox, World, frames, read_all

TEXTS = ["a", "bc ", "\N{GRINNING FACE}", "\U00020000é\u2028", "word " * 3]


class Seen:
    """A connection, its viewer, and the feed that they hang on."""

    def __init__(self, feed: Feed, world: World, *, deltas: bool, since: int | None = None, user: str = "ann") -> None:
        self.outbox = PaperOutbox()
        self.viewer = Viewer(self.outbox)  # type: ignore[arg-type]
        self.connection = Connection(world.session_id, User(user), self.outbox, deltas=deltas)
        self.viewer.offset = since or 0
        self.connection.cursor = Cursor(self.viewer.offset)
        # As the hub does it: look into the log, see to it that the feed knows no less, attach.
        truth = world.truth(feed.offset, live=False)
        if truth.offset > feed.offset:
            feed.reconcile(truth)
        if since is None:
            feed.attach_afresh(self.connection, online=[user])
        else:
            feed.reconcile(world.truth(world.offset, live=False))
            assert feed.attach(self.connection, world.events(since), online=[user])

    def read(self) -> None:
        self.outbox.reads = True
        self.outbox.pump()
        read_all(self.viewer, self.outbox)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def feed(world: World) -> Feed:
    return _loaded(world)


def _loaded(world: World) -> Feed:
    feed = Feed(world.session_id, typing_seconds=5)
    feed.reconcile(world.truth(0, live=True))
    return feed


def _deliver(feed: Feed, envelope: Any) -> None:
    if isinstance(envelope, Delta):
        feed.delta(envelope)
    elif isinstance(envelope, Durable):
        feed.durable(envelope)


def _settle(feed: Feed, world: World, viewers: list[Seen]) -> None:
    """What the keeper and the clock do in the end."""
    for seen in viewers:
        seen.outbox.reads = True
    feed.reconcile(world.truth(feed.offset, live=True))
    feed.tick(time.monotonic())
    for reply in feed.replies.values():
        reply.next_snapshot_at = 0.0
    feed.tick(time.monotonic())
    for seen in viewers:
        seen.read()


def _check(world: World, viewers: list[Seen]) -> None:
    for seen in viewers:
        assert seen.viewer.offset == world.offset
        for message_id, text in seen.viewer.texts.items():
            message = world.messages[message_id]
            expected = message["content"] if message["status"] == "complete" else world.live[message_id]
            assert text == expected
        for message in world.messages.values():
            if (
                message["status"] == "complete"
                and message["role"] == "assistant"
                and message["id"] in seen.viewer.messages
            ):
                assert seen.viewer.messages[message["id"]] == message


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("ask", "begin", "write", "write", "write", "checkpoint", "finish"),
                *("deliver", "deliver", "deliver", "deliver", "catch up", "look", "tick"),
                *("join", "rejoin", "stop", "read"),
            ]
        ),
        st.integers(0, 10_000),
    ),
    max_size=80,
)


@settings(max_examples=400, deadline=None)
@given(steps=STEPS)
def test_whatever_is_dropped_doubled_or_reordered_every_viewer_ends_with_the_truth(
    steps: list[tuple[str, int]],
) -> None:
    world = World()
    feed = _loaded(world)
    viewers = [Seen(feed, world, deltas=True), Seen(feed, world, deltas=False, user="bob")]

    for step, number in steps:
        if step in ("ask", "begin", "checkpoint", "finish"):
            getattr(world, step)()
        elif step == "write":
            world.write(TEXTS[number % len(TEXTS)])
        elif step == "deliver" and world.published:
            # Rather something recent, but anything that ever was.
            back = number % min(len(world.published), 5 if number % 3 else 1000)
            _deliver(feed, world.published[-1 - back])
        elif step == "catch up":
            for envelope in world.published[-(number % 20) :]:
                _deliver(feed, envelope)
        elif step == "look":
            feed.reconcile(world.truth(feed.offset, live=bool(number % 2)))
        elif step == "join":
            viewers.append(Seen(feed, world, deltas=bool(number % 2)))
        elif step == "rejoin":
            viewers.append(Seen(feed, world, deltas=bool(number % 2), since=number % (world.offset + 1)))
        elif step == "stop":
            viewers[number % len(viewers)].outbox.reads = False
        elif step == "read":
            viewers[number % len(viewers)].read()
        else:
            feed.tick(time.monotonic() + number)
    _settle(feed, world, viewers)

    _check(world, viewers)


def test_a_delta_that_does_not_fit_asks_for_the_truth_and_is_not_shown(world: World, feed: Feed) -> None:
    world.ask()
    world.begin()
    for envelope in world.published:
        _deliver(feed, envelope)
    seen = Seen(feed, world, deltas=True)
    seen.read()
    world.write("lost ")
    world.write("found")

    _deliver(feed, world.published[-1])

    assert feed.needs_refresh
    assert not frames(seen.outbox)
    feed.reconcile(world.truth(feed.offset, live=True))
    assert [frame["text"] for frame in frames(seen.outbox)] == ["lost found"]


def test_an_event_that_comes_too_early_waits_for_the_truth(world: World, feed: Feed) -> None:
    seen = Seen(feed, world, deltas=False)
    seen.read()
    world.ask()

    feed.durable(world.events(0)[2])

    assert feed.needs_refresh
    assert not frames(seen.outbox)


def test_text_of_an_attempt_that_has_ended_is_not_shown(world: World, feed: Feed) -> None:
    world.ask()
    world.begin()
    world.write("late")
    late = world.published[-1]
    world.finish()
    for envelope in world.published:
        if envelope is not late:
            _deliver(feed, envelope)
    seen = Seen(feed, world, deltas=True)
    seen.read()

    _deliver(feed, late)

    assert not frames(seen.outbox)


def test_a_new_attempt_known_before_it_is_told_keeps_its_text(world: World, feed: Feed) -> None:
    world.ask()
    world.begin()
    world.write("first")
    world.checkpoint()
    for envelope in world.published:
        _deliver(feed, envelope)
    world.begin()
    restarted = world.published[-2]
    world.write("second")
    feed.reconcile(world.truth(world.offset, live=True))

    feed.durable(restarted)

    reply = next(iter(feed.replies.values()))
    assert (reply.attempt, reply.text.whole()) == (2, "second")


def test_a_log_that_is_shorter_than_what_was_shown_sends_everyone_away(world: World, feed: Feed) -> None:
    world.ask()
    feed.reconcile(world.truth(0, live=True))
    seen = Seen(feed, world, deltas=False)
    del world.log[1:]

    feed.start_over(world.truth(0, live=True))

    assert seen.outbox.closed_with == 1012
    assert feed.offset == 1


@pytest.mark.parametrize(
    "frame",
    [b"", b"[]", b"{}", b"nonsense", b"[" * 100_000, b'{"type":"message_update","offset":1}',
     b'{"type":"message_update","offset":1,"message":{"id":1}}', b'{"type":"error","offset":1,"message":{}}',
     b'{"type":"session_update","offset":2,"session":{"id":"x"}}', b'{"type":["x"],"offset":1,"job":{}}'],
)  # fmt: skip
def test_what_is_no_event_moves_nothing(world: World, feed: Feed, frame: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        feed.durable(Durable(1, frame))
    world.ask()
    for event in world.events(0):
        feed.durable(event)

    assert feed.offset == 3


def test_a_viewer_whose_past_is_longer_than_is_remembered_is_sent_to_the_log(world: World, feed: Feed) -> None:
    for _ in range(REMEMBERED_EVENTS):
        world.ask()
    feed.reconcile(world.truth(0, live=True))
    connection = Connection(world.session_id, User("ann"), PaperOutbox())

    attached = feed.attach(connection, [], online=[])

    assert not attached
    assert not connection.greeted


def test_large_events_are_remembered_up_to_a_size_only(world: World, feed: Feed) -> None:
    for _ in range(8):
        world.ask()
        question = next(message for message in reversed(world.messages.values()) if message["role"] == "user")
        question["content"] = "x" * (REMEMBERED_BYTES // 4)
    feed.reconcile(world.truth(0, live=True))
    knows_most, knows_nothing = (Connection(world.session_id, User("ann"), PaperOutbox()) for _ in range(2))

    few = feed.attach(knows_most, world.events(0)[:-3], online=[])
    all_of_them = feed.attach(knows_nothing, [], online=[])

    assert (few, all_of_them) == (True, False)


def test_so_many_ends_are_remembered_and_late_text_of_older_ones_is_no_error(world: World, feed: Feed) -> None:
    late = []
    for _ in range(REMEMBERED_ENDS + 1):
        world.ask()
        world.begin()
        world.write("late")
        late.append(world.published[-1])
        world.finish()
    feed.reconcile(world.truth(0, live=True))
    seen = Seen(feed, world, deltas=True)
    seen.read()

    wanted = []
    for delta in (late[-1], late[0]):
        feed.needs_refresh = False
        _deliver(feed, delta)
        wanted.append(feed.needs_refresh)

    # What is no longer remembered is looked up, and then it is known that nothing is written there.
    assert wanted == [False, True]
    assert not frames(seen.outbox)


class RunningAway:
    """A log that has always moved on by more than a feed remembers."""

    def __init__(self, feed: Feed) -> None:
        self.looks = 0
        self._feed = feed

    def look(self, feed: Feed, user: User, *, since: Cursor) -> Log:
        self.looks += 1
        self._feed.offset += REMEMBERED_EVENTS + 1
        return Log(since, [])


def test_who_can_not_catch_up_with_a_log_is_sent_away_after_some_tries(world: World, feed: Feed) -> None:
    reader = RunningAway(feed)
    outbox = PaperOutbox()
    connection = Connection(world.session_id, User("ann"), outbox)
    connection.greeted = True

    for _ in attach(reader, feed, connection, since=Cursor(0), online=set()):  # type: ignore[arg-type]
        continue

    assert (outbox.closed_with, reader.looks) == (1013, JOIN_TRIES)


def test_a_viewer_let_in_before_the_last_event_is_looked_at_again(world: World, feed: Feed) -> None:
    world.ask()
    feed.reconcile(world.truth(0, live=True))
    for admitted_at, again in ((world.offset, False), (world.offset - 1, True)):
        feed.participants_changed = False
        connection = Connection(world.session_id, User("ann"), PaperOutbox(), admitted_at=admitted_at)
        feed.attach_afresh(connection, online=[])
        assert feed.participants_changed == again


def test_a_feed_that_is_gone_lets_nobody_in(world: World, feed: Feed) -> None:
    feed.close()

    assert not feed.attach_afresh(Connection(world.session_id, User("ann"), PaperOutbox()), online=[])


def test_event_of_a_newer_release_is_shown_and_the_log_goes_on(world: World, feed: Feed) -> None:
    seen = Seen(feed, world, deltas=True)
    unknown = {"type": "reaction_update", "reactions": []}
    cursor = Cursor(feed.offset + 1, "1f")

    feed.durable(Durable(cursor.offset, encode(framed(unknown, world.session_id, now(), cursor)), tag=cursor.tag))

    (*_, shown) = frames(seen.outbox)
    assert (shown["type"], shown["offset"], shown["cursor"]) == ("reaction_update", cursor.offset, str(cursor))
    # It may be about participants.
    assert (feed.offset, feed.needs_refresh, feed.participants_changed) == (cursor.offset, False, True)

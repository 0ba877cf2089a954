"""Who is here, as Redis counts it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from chat_backend.config import Settings
from chat_backend.realtime.channels import presence_key, user_connections_key
from chat_backend.realtime.connection import RedisClient, client
from chat_backend.realtime.presence import Presence
from tests.support.valkey import Valkey

MOST = 3


@pytest.fixture
def settings(valkey: Valkey) -> Settings:
    limits = {"MAX_CONNECTIONS_PER_SESSION": str(MOST), "PRESENCE_SECONDS": "60"}
    return Settings.from_environment({"AUTH_MODE": "dev", "REDIS_URL": valkey.url, **limits})


@pytest.fixture
def redis(settings: Settings) -> Iterator[RedisClient]:
    with client(settings) as redis:
        yield redis


def _fill(presence: Presence, session_id: UUID) -> list[str]:
    ids = [uuid4().hex for _ in range(MOST)]
    for id in ids:
        assert not presence.join(session_id, "ann", id).refused
    return ids


def _grow_old(redis: RedisClient, session_id: UUID, ids: list[str], *, seconds: float) -> None:
    """Let so much time go by in which nobody confirms these connections."""
    for id in ids:
        redis.zincrby(presence_key(session_id), -seconds, f"{id} ann")
        redis.zincrby(user_connections_key("ann"), -seconds, id)


@pytest.mark.parametrize(("seconds", "refused"), [(0, True), (25, True), (31, False)])
def test_who_comes_back_from_a_killed_process_finds_room_in_half_the_time_that_it_still_counts_as_here(
    redis: RedisClient, settings: Settings, seconds: float, refused: bool
) -> None:
    presence, session_id = Presence(redis, settings), uuid4()
    _grow_old(redis, session_id, _fill(presence, session_id), seconds=seconds)

    joined = presence.join(session_id, "ann", uuid4().hex)

    assert joined.refused is refused
    assert not joined.first


FAR = 9e12


def test_what_somebody_else_wrote_keeps_nobody_out_and_is_nobody(redis: RedisClient, settings: Settings) -> None:
    presence, session_id = Presence(redis, settings), uuid4()
    soon = time.time() + 30
    forged = {f"{uuid4().hex} ghost": FAR, **{f"{uuid4().hex} ann": FAR - n for n in range(MOST)}}
    redis.zadd(presence_key(session_id), {b"\xff\xfe": soon, b"\xff\xfe x": FAR, "": soon, "x \0": soon, **forged})
    redis.zadd(user_connections_key("ann"), {str(n): FAR for n in range(1000)} | {b"\xff": float("inf")})

    joined = presence.join(session_id, "ann", uuid4().hex)
    left = presence.leave(session_id, "bob", uuid4().hex)

    assert (joined.refused, joined.first, joined.online) == (False, True, {"ann"})
    assert left == {"ann"}


def test_what_somebody_else_wrote_into_one_session_stops_no_pruning(redis: RedisClient, settings: Settings) -> None:
    presence, spoilt, taken, good = Presence(redis, settings), uuid4(), uuid4(), uuid4()
    redis.zadd(presence_key(spoilt), {b"\xff\xfe": time.time() + 30, b"\xff\xff": 1})
    for key in (presence_key(taken), user_connections_key("bob")):
        redis.set(key, "x")
    redis.zadd(presence_key(good), {f"{uuid4().hex} ghost": 1})

    presence.refresh([(spoilt, "ann", uuid4().hex), (taken, "bob", uuid4().hex), (good, "cat", uuid4().hex)])
    pruned = presence.prune([spoilt, taken, good])

    assert pruned == [(set(), {"ann"}), (set(), {"bob"}), ({"ghost"}, {"cat"})]

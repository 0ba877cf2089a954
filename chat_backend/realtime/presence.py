"""Who is here: connections of the whole deployment, kept in Redis and allowed to be stale."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import redis

from chat_backend.config import Settings
from chat_backend.domain.user import is_user_id
from chat_backend.realtime.channels import WEB_PROCESSES, WORKER_PROCESSES, presence_key, user_connections_key
from chat_backend.realtime.connection import over_what_is_ours

# What a process has reported counts for so long.
REPORT_SECONDS = 30

# The most that PRESENCE_SECONDS may be, and an hour that clocks may differ by: what says that it counts for longer was
# not written by us. Anyone may write into Redis.
LONGEST_SECONDS = 2 * 3600
_REPORT = re.compile(rb"(\d{1,9}) (\d{1,12}(?:\.\d{1,20})?)")

# A share of the time that a connection counts. Living ones are confirmed thrice in it; after so long one is doubted.
UNCONFIRMED_SHARE = 0.5

# Of what somebody else has put there nothing stays: no other kind of value, nothing that counts longer than ours.
_OURS = f"""
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key)['ok']
  if kind ~= 'zset' and kind ~= 'none' then redis.call('DEL', key) end
  redis.call('ZREMRANGEBYSCORE', key, ARGV[1] + {LONGEST_SECONDS}, '+inf')
end
"""

# Members are "<connection id> <user id>", scored by when they stop counting. Only _PRUNE removes those that have.
# The limits count what was confirmed lately: who comes back after its web process was killed finds room sooner than the
# others hear that it left.
_JOIN = """
local here, lately = 0, 0
local found = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf', 'WITHSCORES')
for i = 1, #found, 2 do
  if string.sub(found[i], 34) == ARGV[4] then
    here = here + 1
    if tonumber(found[i + 1]) >= tonumber(ARGV[8]) then lately = lately + 1 end
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[1])
local everywhere = redis.call('ZCOUNT', KEYS[2], ARGV[8], '+inf')
if lately >= tonumber(ARGV[5]) or everywhere >= tonumber(ARGV[6]) then return {-1, {}} end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3] .. ' ' .. ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[7])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[7])
return {here, redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf')}
"""

_LEAVE = """
redis.call('ZREM', KEYS[1], ARGV[2] .. ' ' .. ARGV[3])
redis.call('ZREM', KEYS[2], ARGV[2])
return redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf')
"""

_CONFIRM = """
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3] .. ' ' .. ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[5])
"""

# Whoever removes an expired member is the one to say that its user left.
_PRUNE = """
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
return {gone, redis.call('ZRANGE', KEYS[1], 0, -1)}
"""


@dataclass(frozen=True)
class Joined:
    """What a join found: was it refused, is it the user's first connection, who is here now."""

    refused: bool
    first: bool
    online: frozenset[str]


class Presence:
    """Counts connections by user over all web processes. Every method may raise redis.RedisError."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis = client
        self._per_session = settings.max_connections_per_session
        self._per_user = settings.max_connections_per_user
        self._seconds = settings.presence_seconds
        # Keys outlive what they hold, so that whoever prunes still finds who is gone.
        self._key_seconds = math.ceil(2 * self._seconds)
        self._join = client.register_script(_OURS + _JOIN)
        self._leave = client.register_script(_OURS + _LEAVE)
        self._confirm = client.register_script(_OURS + _CONFIRM)
        self._prune = client.register_script(_OURS + _PRUNE)

    def join(self, session_id: UUID, user_id: str, connection_id: str) -> Joined:
        """Count a connection in, unless the user has too many."""
        now = time.time()
        keys = [presence_key(session_id), user_connections_key(user_id)]
        limits = [self._per_session, self._per_user, self._key_seconds, now + self._seconds * (1 - UNCONFIRMED_SHARE)]
        here, members = self._join(keys, [now, now + self._seconds, connection_id, user_id, *limits])
        return Joined(refused=here < 0, first=here == 0, online=_users(members))

    def leave(self, session_id: UUID, user_id: str, connection_id: str) -> frozenset[str]:
        """Count a connection out; return who is still here."""
        keys = [presence_key(session_id), user_connections_key(user_id)]
        return _users(self._leave(keys, [time.time(), connection_id, user_id]))

    def refresh(self, connections: Iterable[tuple[UUID, str, str]]) -> None:
        """Say that connections (session, user, connection id) are still open."""
        now = time.time()
        pipeline = self._redis.pipeline(transaction=False)
        for session_id, user_id, connection_id in connections:
            keys = [presence_key(session_id), user_connections_key(user_id)]
            said: list[float | str] = [now, now + self._seconds, connection_id, user_id, self._key_seconds]
            self._confirm(keys, said, client=pipeline)
        pipeline.execute()

    def prune(self, session_ids: Sequence[UUID]) -> list[tuple[frozenset[str], frozenset[str]]]:
        """Drop connections of processes that died; return, for each session, who left with them and who is here."""
        pipeline = self._redis.pipeline(transaction=False)
        at = time.time()
        for session_id in session_ids:
            self._prune([presence_key(session_id)], [at], client=pipeline)
        found = [(_users(gone), _users(members)) for gone, members in pipeline.execute()]
        return [(gone - online, online) for gone, online in found]


def _users(members: Iterable[bytes]) -> frozenset[str]:
    users = (member.decode(errors="surrogateescape").partition(" ")[2] for member in members)
    return frozenset(user for user in users if is_user_id(user))


class ProcessCensus:
    """Which web and worker processes are alive, and how many connections each holds."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def report_web(self, process_id: str, connections: int) -> None:
        self._report(WEB_PROCESSES, process_id, connections)

    def report_worker(self, process_id: str, running: int) -> None:
        self._report(WORKER_PROCESSES, process_id, running)

    def leave(self, process_id: str) -> None:
        for key in (WEB_PROCESSES, WORKER_PROCESSES):
            over_what_is_ours(self._redis, key, partial(self._redis.hdel, key, process_id))

    def connections(self) -> dict[str, int]:
        """Return the open connections of every living web process."""
        return self._counts(WEB_PROCESSES)

    def workers(self) -> dict[str, int]:
        """Return the running replies of every living worker process."""
        return self._counts(WORKER_PROCESSES)

    def _report(self, key: str, process_id: str, count: int) -> None:
        pipeline = self._redis.pipeline()

        def report() -> None:
            pipeline.hset(key, process_id, f"{count} {time.time() + REPORT_SECONDS}")
            pipeline.expire(key, REPORT_SECONDS * 2)
            pipeline.execute()

        over_what_is_ours(self._redis, key, report)

    def _counts(self, key: str) -> dict[str, int]:
        reports: Any = over_what_is_ours(self._redis, key, partial(self._redis.hgetall, key))
        counts, dead = {}, []
        for process_id, report in reports.items():
            count = _living(report)
            if count is None:
                dead.append(process_id)
            else:
                counts[process_id.decode(errors="replace")] = count
        if dead:
            self._redis.hdel(key, *dead)
        return counts


def _living(report: bytes) -> int | None:
    """Return what a process counts; None where it is dead, or no process said this."""
    said = _REPORT.fullmatch(report)
    if said is None or not 0 <= float(said[2]) - time.time() < LONGEST_SECONDS:
        return None
    return int(said[1])

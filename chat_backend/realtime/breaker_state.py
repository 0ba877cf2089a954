"""The circuit breakers' shared state in Redis: one circuit for each provider and model.

`OPEN_CIRCUITS` is a sorted set of circuits that are not closed, each with the time (Redis' clock) until which it
refuses; after that time it is half open. A circuit nobody tried for FORGET_SECONDS after that is forgotten.

A circuit opens after enough failures in a row, of at least two jobs. Failures of two users open it for everyone. One
user's failures open it for this user alone, and only if nobody else has asked any model within FORGET_SECONDS: in a
deployment of one user that is everyone, and in any other nobody's prompts can take a model from others.

| key | holds |
|---|---|
| `probe:<circuit>` | the place of the one call that tries a half-open circuit |
| `failed:<circuit>` | failures in a row, the first one's job and user, and whether there were others |
| `only:<circuit>` | for whom alone a circuit is open |
| `users` | the two users who asked last |
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import blake2b
from typing import Any

from redis import Redis

from chat_backend.domain.enums import PROVIDERS
from chat_backend.realtime.connection import over_what_is_ours

__all__ = ["CLOSED", "FORGET_SECONDS", "HALF_OPEN", "OPEN", "Leave", "SharedCircuits", "read", "worst"]

CLOSED, HALF_OPEN, OPEN = "closed", "half_open", "open"
OPEN_CIRCUITS = "chat:breaker:open"
RECENT_USERS = "chat:breaker:users"
FORGET_SECONDS = 600
# The most that BREAKER_OPEN_SECONDS may be: what is open for longer was not written by us.
LONGEST_SECONDS = 3600

# Anyone may write into Redis: a value of another kind is removed, and so is a time that is none of ours.
_OURS = f"""
local time = redis.call('TIME')
local now = tonumber(time[1]) + time[2] / 1000000
for index, expected in ipairs({{'zset', 'string', 'hash', 'string', 'zset'}}) do
  local kind = redis.call('TYPE', KEYS[index])['ok']
  if kind ~= expected and kind ~= 'none' then redis.call('DEL', KEYS[index]) end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + {LONGEST_SECONDS + 1}, '+inf')
"""

# The two users who asked last are enough to tell whether there is more than one.
_NOTE_USER = f"""
redis.call('ZREMRANGEBYSCORE', KEYS[5], now + 1, '+inf')
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now - {FORGET_SECONDS})
redis.call('ZADD', KEYS[5], now, ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -3)
redis.call('EXPIRE', KEYS[5], {FORGET_SECONDS})
"""

_ALLOW = f"""
local until_ = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not until_ then return 1 end
local only = redis.call('GET', KEYS[4])
if only and only ~= ARGV[2] then return 1 end
if now < tonumber(until_) then return 0 end
local left = redis.call('PTTL', KEYS[2])
if left == -1 or left > {LONGEST_SECONDS * 1000} then redis.call('DEL', KEYS[2]) end
return redis.call('SET', KEYS[2], 1, 'NX', 'PX', ARGV[3]) and 2 or 0
"""

_FAILED = f"""
local user, job, open_ms, threshold = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local kept_ms = open_ms + {FORGET_SECONDS * 1000}
local until_ = redis.call('ZSCORE', KEYS[1], ARGV[1])
local only = redis.call('GET', KEYS[4])
if only and only ~= user then
  redis.call('DEL', KEYS[4])
  only = false
end
if until_ and now < tonumber(until_) then return end
if not until_ then
  only = false
  local failures = redis.pcall('HINCRBY', KEYS[3], 'failures', 1)
  if type(failures) ~= 'number' then
    redis.call('DEL', KEYS[3])
    failures = redis.call('HINCRBY', KEYS[3], 'failures', 1)
  end
  redis.call('HSETNX', KEYS[3], 'user', user)
  redis.call('HSETNX', KEYS[3], 'job', job)
  if redis.call('HGET', KEYS[3], 'user') ~= user then redis.call('HSET', KEYS[3], 'several_users', 1) end
  if redis.call('HGET', KEYS[3], 'job') ~= job then redis.call('HSET', KEYS[3], 'several_jobs', 1) end
  redis.call('EXPIRE', KEYS[3], {FORGET_SECONDS})
  if failures < threshold or redis.call('HEXISTS', KEYS[3], 'several_jobs') == 0 then return end
  if redis.call('HEXISTS', KEYS[3], 'several_users') == 0 then
    if redis.call('ZCARD', KEYS[5]) > 1 then return end
    only = user
  end
end
if only then redis.call('SET', KEYS[4], only, 'PX', kept_ms) else redis.call('DEL', KEYS[4]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - {FORGET_SECONDS})
redis.call('ZADD', KEYS[1], now + open_ms / 1000, ARGV[1])
redis.call('PEXPIRE', KEYS[1], kept_ms)
redis.call('DEL', KEYS[2], KEYS[3])
"""

_SUCCEEDED = """
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
"""


class Leave(IntEnum):
    """Whether a model may be asked: not now, like any other, or by the one call that tries whether it answers again."""

    REFUSED = 0
    GIVEN = 1
    PROBE = 2


class SharedCircuits:
    """The circuits as all workers share them. Every method is one atomic call and may raise RedisAway."""

    def __init__(self, redis: Redis, *, failures: int, open_seconds: float) -> None:
        self._redis = redis
        self._failures = failures
        self._open_ms = int(open_seconds * 1000)
        self._allow = redis.register_script(_OURS + _ALLOW)
        self._failed = redis.register_script(_OURS + _NOTE_USER + _FAILED)
        self._succeeded = redis.register_script(_OURS + _NOTE_USER + _SUCCEEDED)

    def calm(self) -> bool:
        """Tell whether no circuit is open, or half open."""
        return not self._redis.exists(OPEN_CIRCUITS)

    def allow(self, circuit: str, user: str) -> Leave:
        """Tell whether a user's call may be made; a half-open circuit lets one through each time it would be open."""
        return Leave(int(self._allow(keys=_keys(circuit), args=[circuit, _name(user), self._open_ms])))

    def failed(self, circuit: str, user: str, job: str) -> None:
        self._failed(keys=_keys(circuit), args=[circuit, _name(user), job, self._open_ms, str(self._failures)])

    def succeeded(self, circuit: str, user: str) -> None:
        self._succeeded(keys=_keys(circuit), args=[circuit, _name(user)])

    def read(self) -> dict[str, str]:
        return read(self._redis)


def read(redis: Redis) -> dict[str, str]:
    """Tell each provider's state, the worst of its models'. Raises RedisAway."""
    circuits, (seconds, micros) = over_what_is_ours(redis, OPEN_CIRCUITS, lambda: _ask(redis))
    now = seconds + micros / 1_000_000
    states: dict[str, list[str]] = {}
    for circuit, until in circuits:
        if now - FORGET_SECONDS < until <= now + LONGEST_SECONDS:
            states.setdefault(provider_of(circuit), []).append(OPEN if until > now else HALF_OPEN)
    return {provider: worst(states.get(provider, [])) for provider in PROVIDERS}


def _ask(redis: Redis) -> Any:
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.zrange(OPEN_CIRCUITS, 0, -1, withscores=True)
        pipeline.time()
        return pipeline.execute()


def worst(states: list[str]) -> str:
    """Tell the worst of some states; closed where there are none."""
    return max(states, key=(CLOSED, HALF_OPEN, OPEN).index, default=CLOSED)


def circuit_of(provider: str, model: str) -> str:
    return f"{provider}:{model}"


def provider_of(circuit: Any) -> str:
    text: str = circuit.decode(errors="replace") if isinstance(circuit, bytes) else circuit
    return text.partition(":")[0]


def _name(user: str) -> str:
    """Return a user's id as it is compared: of bounded length."""
    return blake2b(user.encode(errors="replace"), digest_size=16).hexdigest()


def _keys(circuit: str) -> list[str]:
    named = [f"chat:breaker:{what}:{circuit}" for what in ("probe", "failed", "only")]
    return [OPEN_CIRCUITS, *named, RECENT_USERS]

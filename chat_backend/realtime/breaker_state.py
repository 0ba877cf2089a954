"""The circuit breakers' shared state in Redis: one circuit for each provider and model.

`OPEN_CIRCUITS` is a sorted set of circuits that are not closed, each with the time (Redis' clock) until which it
refuses; after that time it is half open. A circuit nobody tried for FORGET_SECONDS after that is forgotten.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from redis import Redis

from chat_backend.domain.enums import PROVIDERS
from chat_backend.realtime.connection import over_what_is_ours

__all__ = ["CLOSED", "HALF_OPEN", "OPEN", "Leave", "SharedCircuits", "read", "worst"]

CLOSED, HALF_OPEN, OPEN = "closed", "half_open", "open"
OPEN_CIRCUITS = "chat:breaker:open"
FORGET_SECONDS = 600
# The most that BREAKER_OPEN_SECONDS may be: what is open for longer was not written by us.
LONGEST_SECONDS = 3600

# Anyone may write into Redis: another kind of value is removed, and so is a time that is none of ours.
_OURS = f"""
local time = redis.call('TIME')
local now = tonumber(time[1]) + time[2] / 1000000
local kind = redis.call('TYPE', KEYS[1])['ok']
if kind ~= 'zset' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + {LONGEST_SECONDS + 1}, '+inf')
"""

_ALLOW = f"""
local until_ = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not until_ then return 1 end
if now < tonumber(until_) then return 0 end
local left = redis.call('PTTL', KEYS[2])
if left == -1 or left > {LONGEST_SECONDS * 1000} then redis.call('DEL', KEYS[2]) end
return redis.call('SET', KEYS[2], 1, 'NX', 'PX', ARGV[2]) and 2 or 0
"""

_FAILED = """
local until_ = redis.call('ZSCORE', KEYS[1], ARGV[1])
if until_ and now < tonumber(until_) then return end
if not until_ then
  local failures = redis.pcall('INCR', KEYS[3])
  if type(failures) ~= 'number' then
    redis.call('SET', KEYS[3], 1)
    failures = 1
  end
  redis.call('EXPIRE', KEYS[3], ARGV[4])
  if failures < tonumber(ARGV[3]) then return end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[4])
redis.call('ZADD', KEYS[1], now + ARGV[2] / 1000, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2] + ARGV[4] * 1000)
redis.call('DEL', KEYS[2], KEYS[3])
"""

_SUCCEEDED = """
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3])
"""


class Leave(IntEnum):
    """Whether a model may be asked: not now, like any other, or by the one call that tries whether it answers again."""

    REFUSED = 0
    GIVEN = 1
    PROBE = 2


class SharedCircuits:
    """What workers tell each other about circuits; every method is one atomic call and may raise RedisAway."""

    def __init__(self, redis: Redis, *, failures: int, open_seconds: float) -> None:
        self._redis = redis
        self._failures = failures
        self._open_ms = int(open_seconds * 1000)
        self._allow = redis.register_script(_OURS + _ALLOW)
        self._failed = redis.register_script(_OURS + _FAILED)
        self._succeeded = redis.register_script(_OURS + _SUCCEEDED)

    def calm(self) -> bool:
        """Tell whether no circuit is open, or half open."""
        return not self._redis.exists(OPEN_CIRCUITS)

    def allow(self, circuit: str) -> Leave:
        """Tell whether a call may be made; a half-open circuit lets one through each time it would be open."""
        return Leave(int(self._allow(keys=_keys(circuit), args=[circuit, self._open_ms])))

    def failed(self, circuit: str) -> None:
        self._failed(keys=_keys(circuit), args=[circuit, self._open_ms, self._failures, FORGET_SECONDS])

    def succeeded(self, circuit: str) -> None:
        self._succeeded(keys=_keys(circuit), args=[circuit])

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


def _keys(circuit: str) -> list[str]:
    return [OPEN_CIRCUITS, f"chat:breaker:probe:{circuit}", f"chat:breaker:failures:{circuit}"]

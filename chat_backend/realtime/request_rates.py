"""How often each user and address asks, counted over all web processes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from chat_backend.config import Settings
from chat_backend.domain.outage import Outage
from chat_backend.domain.rate import MINUTE_SECONDS, Rate
from chat_backend.realtime.channels import rate_key
from chat_backend.realtime.connection import RedisAway, client

log = logging.getLogger(__name__)

COMMAND_SECONDS = 0.2
_MICROSECONDS = 1_000_000
# Takes one of every rate or none at all: what is refused for its user does not use up what its address may.
# A key holds when all that was taken will be earned, and lasts until then. By Redis' own clock, in microseconds.
# Anyone may write into Redis: what is no number, or a time that nobody can have taken up to, counts as none.
_TAKE = """
local time = redis.call('TIME')
local at = time[1] * 1000000 + time[2]
local minute = tonumber(ARGV[1])
local earned = {}
for i, key in ipairs(KEYS) do
    local step, taken = tonumber(ARGV[i + 1]), redis.pcall('GET', key)
    taken = type(taken) == 'string' and tonumber(taken) or 0
    if not (taken <= at + minute + step) then taken = 0 end
    earned[i] = math.max(at, taken) + step
    if earned[i] - at > minute then
        return {i, earned[i] - at - minute}
    end
end
for i, key in ipairs(KEYS) do
    redis.call('SET', key, string.format('%.0f', earned[i]), 'PX', math.ceil((earned[i] - at) / 1000))
end
return {0, 0}
"""


class RequestRates:
    """Takes from rates that all web processes share, in one round trip; while Redis is away, gives up at once."""

    def __init__(self, settings: Settings) -> None:
        self._take = client(settings, seconds=COMMAND_SECONDS).register_script(_TAKE)
        self._outage = Outage(failures=1)

    def take(self, rates: Sequence[Rate]) -> tuple[Rate, float] | None:
        """Take one of each rate, or none; return which refuses, and the seconds until it would not.

        Raises RedisAway, within a fraction of a second.
        """
        if not self._outage.over():
            raise RedisAway
        try:
            number, wait = self._take(
                [_key(rate) for rate in rates], [_in_microseconds(MINUTE_SECONDS), *_steps(rates)]
            )
        except RedisAway as error:
            self._outage.failed()
            log.warning("could not count requests", extra={"action": "rate", "error": type(error).__name__})
            raise
        self._outage.succeeded()
        return (rates[number - 1], wait / _MICROSECONDS) if number else None


def _key(rate: Rate) -> str:
    # Of one length, whatever a user is called; and Redis need not know the name.
    return rate_key(hashlib.blake2b(rate.name.encode(), digest_size=16).hexdigest())


def _steps(rates: Sequence[Rate]) -> list[int]:
    return [_in_microseconds(rate.interval_seconds) for rate in rates]


def _in_microseconds(seconds: float) -> int:
    return round(seconds * _MICROSECONDS)

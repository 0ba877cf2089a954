"""Clients of Redis: every wait has a limit, and no library default decides one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from chat_backend.config import Settings

COMMAND_SECONDS = 0.5
LISTENING_SECONDS = 2.0
POOL_SIZE = 32
POOL_WAIT_SECONDS = 0.2
# A listener only reads: without these it would not notice for hours that the other machine is gone.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

# What other rooms know of the library: a connected client, and what it raises when Redis can't be used.
RedisClient = redis.Redis
RedisAway = redis.RedisError

Answer = TypeVar("Answer")


def client(settings: Settings, *, seconds: float = COMMAND_SECONDS) -> redis.Redis:
    """Return a client for commands; raises redis.RedisError within `seconds` and POOL_WAIT_SECONDS.

    A connection that the server closed is replaced once, at once; a silent one is not waited for twice.
    """
    pool = redis.BlockingConnectionPool.from_url(
        settings.live_redis_url,
        max_connections=POOL_SIZE,
        timeout=POOL_WAIT_SECONDS,
        protocol=2,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
    return redis.Redis.from_pool(pool)


def listening_client(settings: Settings) -> redis.Redis:
    """Return a client for subscriptions. Connecting and sending have a limit; reading begins with a look."""
    return redis.Redis.from_url(
        settings.live_redis_url,
        protocol=2,
        socket_timeout=LISTENING_SECONDS,
        socket_connect_timeout=LISTENING_SECONDS,
        socket_keepalive=True,
        socket_keepalive_options={getattr(socket, name): n for name, n in _KEEPALIVE.items() if hasattr(socket, name)},
        health_check_interval=0,
        # None, not even once: redis-py would connect and subscribe anew before it raises, for nothing.
        retry=Retry(NoBackoff(), 0, supported_errors=()),
    )


def async_client(settings: Settings, *, seconds: float = COMMAND_SECONDS) -> redis.asyncio.Redis:
    """Return a client for an event loop; raises redis.RedisError within `seconds`."""
    return redis.asyncio.Redis.from_url(
        settings.live_redis_url,
        protocol=2,
        max_connections=4,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        socket_keepalive=True,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )


def over_what_is_ours(redis_client: redis.Redis, key: str, ask: Callable[[], Answer]) -> Answer:
    """Ask about a key; where somebody else has put another kind of value there, it is removed first."""
    try:
        return ask()
    except redis.ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        redis_client.delete(key)
        return ask()

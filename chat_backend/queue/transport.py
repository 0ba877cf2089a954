"""Celery's Redis transport, for workers: a doorbell, no ledger; what is no message is dropped, not died of."""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis

log = logging.getLogger(__name__)


class Channel(redis.Channel):
    """Takes messages from queues, each once; whoever can write to Redis can put anything there.

    A wake-up that is lost with its worker is found by the sweep, so nothing is noted in Redis to give it back.
    kombu, giving back over a connection that broke, ends the worker: every one that was at work when Redis restarted.
    """

    ack_emulation = False
    do_restore = False

    def _brpop_read(self, **options: Any) -> bool:
        try:
            return bool(super()._brpop_read(**options))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # By now it is out of the queue. kombu would end the worker, and the next one at the next such message.
            log.warning("dropped a message that is none", extra={"action": "receive", "error": type(error).__name__})
            return True


class Transport(redis.Transport):
    """Redis with that channel."""

    Channel = Channel


def install() -> None:
    """Let `redis://` and `rediss://` mean this transport in this process."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"

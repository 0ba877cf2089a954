"""Celery's Redis transport, for workers: a doorbell, no ledger; what is no message is dropped, not died of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis, virtual

from chat_backend.domain.strict_json import MAX_DEPTH, depth_of
from chat_backend.queue import names

log = logging.getLogger(__name__)

# More than a clock of ours counts to in a thousand years.
LATEST_CLOCK = 2**53
# Where a worker's queues are bound: its own, remote control's and its answers'.
_EXCHANGES = (names.QUEUE, "celery.pidbox", "reply.celery.pidbox")
# What says that nothing came, or that the connection broke; kombu's KeyError among them is what a message lacks.
_NO_MESSAGE = (
    Empty,
    *(error for error in redis.Transport.connection_errors if error is not KeyError),
    *redis.Transport.channel_errors,
)


@contextmanager
def _dropping() -> Iterator[None]:
    """Log and forget whatever a message does to those who read it; what the connection says goes on."""
    try:
        yield
    except _NO_MESSAGE:
        raise
    except Exception as error:
        # Anything: anyone who reaches Redis writes here, and kombu and Celery believe what they read. By now it is out
        # of the queue; kombu would end the worker, and the next one at the next such message.
        log.warning("dropped a message that is none", extra={"action": "receive", "error": type(error).__name__})


class Message(virtual.Message):
    """A message as ours are. Raises ValueError or TypeError for what would do harm later.

    What is compressed may be a thousand times as large; a clock is taken over and sent with every event, and one that
    can't be written as JSON would end them all, as would what is nested too deeply.
    """

    def __init__(self, payload: Any, channel: Any = None, **more: Any) -> None:
        if depth_of(payload) > MAX_DEPTH:
            raise ValueError("nested too deeply")
        headers = payload.get("headers") or {}
        if headers.get("compression"):
            raise ValueError("compressed")
        if not 0 <= (headers.get("clock") or 0) < LATEST_CLOCK:
            raise ValueError("no clock of ours")
        super().__init__(payload, channel=channel, **more)


class Channel(redis.Channel):
    """Takes messages from queues, each once; whoever can write to Redis can put anything there.

    A wake-up that is lost with its worker is found by the sweep, so nothing is noted in Redis to give it back.
    kombu, giving back over a connection that broke, ends the worker: every one that was at work when Redis restarted.
    """

    Message = Message
    ack_emulation = False
    do_restore = False

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._remove_other_kinds()

    def _remove_other_kinds(self) -> None:
        """Remove keys of ours that hold another kind of value: else kombu would fail, connect again, and fail again."""
        kinds = {self._q_for_pri(names.QUEUE, step): b"list" for step in self.priority_steps}
        for key in (self.keyprefix_queue, self.keyprefix_binding_permanent):
            kinds |= {key % exchange: b"set" for exchange in _EXCHANGES}
        with self.client.pipeline(transaction=False) as pipeline:
            for key in kinds:
                pipeline.type(self.global_keyprefix + key)  # kombu gives only the commands that it uses the prefix
            found = pipeline.execute()
        for (key, kind), there in zip(kinds.items(), found, strict=True):
            if there not in (kind, b"none"):
                log.warning("removed what is no queue of ours", extra={"action": "receive"})
                self.client.delete(key)

    def basic_consume(self, queue: str, no_ack: bool, callback: Callable[[Any], Any], *args: Any, **more: Any) -> Any:
        def receive(message: Any) -> None:
            with _dropping():
                return callback(message)
            if not message.acknowledged:
                message.ack()  # or it holds one of the worker's places, and after a few nothing is received any more

        return super().basic_consume(queue, no_ack, receive, *args, **more)

    def _brpop_read(self, **options: Any) -> bool:
        with _dropping():
            return bool(super()._brpop_read(**options))
        return True

    def _receive_one(self, client: Any) -> Any:
        # What is no JSON kombu logs and calls Empty: what came with it would lie here until something else comes.
        with suppress(Empty), _dropping():
            return super()._receive_one(client)


class Transport(redis.Transport):
    """Redis with that channel."""

    Channel = Channel


def install() -> None:
    """Let `redis://` and `rediss://` mean this transport in this process."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"

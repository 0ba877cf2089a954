"""One process's one subscription: a thread that reads, and channels that come and go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import redis

from chat_backend.config import Settings
from chat_backend.domain.outage import Outage
from chat_backend.realtime.connection import listening_client

log = logging.getLogger(__name__)

CONFIRMATION_SECONDS = 0.5
RECONNECT_SECONDS = 0.25
READ_SECONDS = 5.0
# Subscribed always, so that the connection exists before the first real channel does.
_ANCHOR = "chat:anchor"


class Subscriber:
    """Hands every message of the subscribed channels to `receive`, on one thread, in order.

    redis-py reconnects and subscribes again without a word. What was published between is lost, so
    `lost_touch` is called whenever a connection is there, the first one too, and when a channel for which
    nobody waited any longer is confirmed after all.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        receive: Callable[[str, bytes], None],
        lost_touch: Callable[[], None],
        channels: tuple[str, ...] = (),
    ) -> None:
        self._redis = listening_client(settings)
        self._receive = receive
        self._lost_touch = lost_touch
        self._lock = threading.Lock()
        self._confirmed: dict[str, threading.Event] = {name: threading.Event() for name in (_ANCHOR, *channels)}
        self._late: set[str] = set()
        # A Redis that hangs costs one newcomer its wait, not each of them.
        self._outage = Outage(failures=1)
        self._pubsub = self._redis.pubsub()
        self._stopped = threading.Event()
        self.connected = False
        self._thread = threading.Thread(target=self._run, name="subscriber", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; bounded."""
        self._stopped.set()
        self._disconnect()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(2)

    def subscribe(self, channel: str) -> bool:
        """Subscribe, and wait until the server has said so; False where it has not in time."""
        with self._lock:
            confirmed = self._confirmed.setdefault(channel, threading.Event())
            if confirmed.is_set():
                return True
            if not self.connected:
                return False
            self._send(self._pubsub.subscribe, channel)
        if self._outage.over() and confirmed.wait(CONFIRMATION_SECONDS):
            self._outage.succeeded()
            return True
        return self._waits_no_longer(channel, confirmed)

    def _waits_no_longer(self, channel: str, confirmed: threading.Event) -> bool:
        with self._lock:
            if not confirmed.is_set():
                self._late.add(channel)
                self._outage.failed()
        return confirmed.is_set()

    def unsubscribe(self, channel: str, *, unless: Callable[[], bool] = lambda: False) -> None:
        """Let a channel go, unless by now somebody wants it again."""
        with self._lock:
            if unless():
                return
            self._late.discard(channel)
            if self._confirmed.pop(channel, None) and self.connected:
                self._send(self._pubsub.unsubscribe, channel)

    def _send(self, command: Callable[[str], None], channel: str) -> None:
        connection = self._pubsub.connection
        if connection is None or not connection.is_connected:
            return  # redis-py would connect here, and everyone wait for it: the reading thread does, and then aligns
        try:
            command(channel)
        except (redis.RedisError, OSError) as error:
            # The reading thread sees the same broken connection, and aligns when there is another.
            log.debug("subscription not sent", extra={"action": "subscribe", "error": type(error).__name__})

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._connect()
                self._read()
            except Exception as error:
                # Whatever it is, a new connection is the answer, and without this thread nothing is live. When stop()
                # closes a connection under it, redis-py says TypeError, ValueError, AttributeError or RuntimeError.
                if not self._stopped.is_set() and self.connected:
                    log.warning("subscription lost", extra={"action": "subscribe", "error": type(error).__name__})
            self._disconnect()
            self._stopped.wait(RECONNECT_SECONDS)

    def _connect(self) -> None:
        with self._lock:
            for confirmed in self._confirmed.values():
                confirmed.clear()
            channels = set(self._confirmed)
        # Without the lock: a Redis that takes connections and says nothing must not hold up who comes and goes.
        pubsub = self._redis.pubsub()
        pubsub.subscribe(*channels)
        with self._lock:
            self._pubsub = pubsub
            self.connected = True
            self._align()

    def _align(self) -> None:
        """Subscribe to what came, and leave what went, while nothing could be sent. With the lock."""
        known = {name.decode() for name in self._pubsub.channels.keys() - self._pubsub.pending_unsubscribe_channels}
        for channel in known - self._confirmed.keys():
            self._send(self._pubsub.unsubscribe, channel)
        missing = self._confirmed.keys() - known
        # The anchor after them: its confirmation says that what they have missed is to be looked up.
        for channel in (*missing, _ANCHOR) if missing else ():
            self._send(self._pubsub.subscribe, channel)

    def _disconnect(self) -> None:
        with self._lock:
            self.connected = False
            self._pubsub.close()

    def _read(self) -> None:
        while not self._stopped.is_set():
            message = self._pubsub.parse_response(block=False, timeout=READ_SECONDS)
            if message is None:
                continue
            try:
                self._hand_over(message)
            except Exception:  # this thread serves everyone, and whoever reaches Redis can publish anything
                log.exception("a message could not be taken", extra={"action": "receive"})

    def _hand_over(self, message: list[Any]) -> None:
        kind, channel = message[0], message[1].decode(errors="replace")
        if kind == b"message":
            self._receive(channel, message[2])
        elif kind == b"subscribe":
            self._subscribed(channel)
        else:
            with self._lock:
                # Or redis-py remembers every channel that there ever was, and subscribes to all of them again.
                self._pubsub.handle_message(message)

    def _subscribed(self, channel: str) -> None:
        # One command subscribes to all channels, so the anchor's confirmation speaks for each of them.
        # It also comes when redis-py has connected and subscribed again by itself.
        with self._lock:
            confirmed = self._confirmed.get(channel)
            was_late = channel in self._late
            self._late.discard(channel)
            if confirmed is not None:
                confirmed.set()
            if channel == _ANCHOR:
                self._align()
        if channel == _ANCHOR or was_late:
            self._lost_touch()

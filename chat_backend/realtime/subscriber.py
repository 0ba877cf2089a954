"""One process's one subscription: a thread that reads, and channels that come and go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import redis

from chat_backend.config import Settings
from chat_backend.realtime.connection import listening_client

log = logging.getLogger(__name__)

CONFIRMATION_SECONDS = 1.0
RECONNECT_SECONDS = 0.25
READ_SECONDS = 5.0
# Subscribed always, so that the connection exists before the first real channel does.
_ANCHOR = "chat:anchor"


class Subscriber:
    """Hands every message of the subscribed channels to `receive`, on one thread, in order.

    redis-py reconnects and subscribes again without a word. What was published between is lost, so
    `lost_touch` is called whenever a connection is there, the first one too.
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
            if self.connected:
                self._send(self._pubsub.subscribe, channel)
        return confirmed.wait(CONFIRMATION_SECONDS) if self.connected else False

    def unsubscribe(self, channel: str) -> None:
        with self._lock:
            if self._confirmed.pop(channel, None) and self.connected:
                self._send(self._pubsub.unsubscribe, channel)

    def _send(self, command: Callable[[str], None], channel: str) -> None:
        try:
            command(channel)
        except (redis.RedisError, OSError) as error:
            # The reading thread sees the same broken connection and subscribes to everything again.
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
            late = set(self._confirmed) - channels
            # The anchor after them: its confirmation says that what they have missed is to be looked up.
            for channel in (*late, _ANCHOR) if late else ():
                self._send(pubsub.subscribe, channel)
            for channel in channels - set(self._confirmed):
                self._send(pubsub.unsubscribe, channel)

    def _disconnect(self) -> None:
        with self._lock:
            self.connected = False
            self._pubsub.close()

    def _read(self) -> None:
        while not self._stopped.is_set():
            message = self._pubsub.parse_response(block=False, timeout=READ_SECONDS)
            if message is None:
                continue
            kind, channel, data = message[0], message[1].decode(errors="replace"), message[2]
            try:
                self._hand_over(kind, channel, data)
            except Exception:  # this thread serves everyone, and whoever reaches Redis can publish anything
                log.exception("a message could not be taken", extra={"action": "receive"})

    def _hand_over(self, kind: bytes, channel: str, data: bytes) -> None:
        if kind == b"message":
            self._receive(channel, data)
        elif kind == b"subscribe":
            self._subscribed(channel)

    def _subscribed(self, channel: str) -> None:
        # One command subscribes to all channels, so the anchor's confirmation speaks for each of them.
        # It also comes when redis-py has connected and subscribed again by itself.
        confirmed = self._confirmed.get(channel)
        if confirmed is not None:
            confirmed.set()
        if channel == _ANCHOR:
            self._lost_touch()

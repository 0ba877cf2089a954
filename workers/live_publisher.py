"""Text on its way: from the providers' streams to Redis, by one publisher a process.

Whatever came in while the last publish was under way goes out in the next: at once when idle, in large
pieces under load, never one publish per token. While Redis is away the text waits here and in the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from uuid import UUID

from chat_backend.config import Settings
from chat_backend.domain import limits
from chat_backend.domain.errors import ReplyTooLong
from chat_backend.protocol.envelope import delta_bytes
from chat_backend.realtime.channels import live_text_key, session_channel
from chat_backend.realtime.connection import async_client
from chat_backend.realtime.live_text import APPEND_AND_PUBLISH, LIVE_SECONDS

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
# The end of a reply is stored after this, whatever Redis does.
FINISH_SECONDS = 1.0
MOST_AT_ONCE = 500


@dataclass
class LiveReply:
    """The text of one running attempt. Written on the event loop; `text()` may be called from any thread."""

    session_id: UUID
    message_id: UUID
    attempt: int
    publisher: LivePublisher
    first_at: float | None = None
    length: int = 0
    unsaved: bool = False
    _parts: list[str] = field(default_factory=list)
    _pending: list[str] = field(default_factory=list)
    _sent: int = 0
    _sent_bytes: int = 0

    def write(self, piece: str) -> None:
        """Add a piece. Raises ReplyTooLong at the limit; what fits is kept."""
        room = limits.REPLY_CHARACTERS - self.length
        kept = piece[:room]
        if kept:
            self.first_at = self.first_at or time.monotonic()
            self._parts.append(kept)
            self._pending.append(kept)
            self.length += len(kept)
            self.unsaved = True
            self.publisher.wanted(self)
        if len(piece) > room:
            raise ReplyTooLong(f"The reply is longer than {limits.REPLY_CHARACTERS} characters.")

    def text(self) -> str:
        """Return the whole text so far."""
        return "".join(self._parts)

    @property
    def key(self) -> str:
        return live_text_key(self.message_id, self.attempt)

    def take(self) -> tuple[int, bytes, bytes]:
        """Return (length in bytes before, envelope's head, new text) of what is pending."""
        text = "".join(self._pending).encode()
        return self._sent_bytes, delta_bytes(str(self.message_id), self.attempt, self._sent, b""), text

    def taken(self, pieces: int, size: int) -> None:
        """Note that the first pieces of what was pending are out."""
        self._sent += sum(map(len, self._pending[:pieces]))
        self._sent_bytes += size
        del self._pending[:pieces]

    @property
    def pending(self) -> int:
        return len(self._pending)


class LivePublisher:
    """Publishes all replies of a process; lives on its event loop."""

    def __init__(self, settings: Settings) -> None:
        self._redis = async_client(settings)
        self._script = self._redis.register_script(APPEND_AND_PUBLISH)
        self._wanted: dict[str, LiveReply] = {}
        self._ended: list[str] = []
        self._ready = asyncio.Event()
        self._flushed = asyncio.Event()
        self.away = False

    def wanted(self, live: LiveReply) -> None:
        """Publish what a reply has pending, soon."""
        self._wanted[live.key] = live
        self._ready.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            await self._flush()

    async def _flush(self) -> None:
        batch = list(self._wanted.values())[:MOST_AT_ONCE]
        for live in batch:
            self._wanted.pop(live.key, None)
        ended, self._ended = self._ended, []
        try:
            if batch:
                await self._send(batch)
            if ended:
                await self._redis.unlink(*ended)
            self.away = False
        except Exception as error:  # not only RedisAway: one publisher serves all replies and must not end
            self._failed(batch, error)
            await asyncio.sleep(PAUSE_SECONDS)
        if self._wanted:
            self._ready.set()
        self._flushed.set()
        self._flushed = asyncio.Event()

    def _failed(self, batch: list[LiveReply], error: Exception) -> None:
        if not self.away:
            log.warning("text on its way has to wait", extra={"action": "live", "error": type(error).__name__})
        self.away = True
        for live in batch:
            # Whether Redis has taken it is unknown: the comparison of lengths will tell.
            if live.pending:
                self._wanted.setdefault(live.key, live)

    async def _send(self, batch: list[LiveReply]) -> None:
        counts = [live.pending for live in batch]
        taken = [live.take() for live in batch]
        arguments: list[bytes | int | str] = [LIVE_SECONDS]
        for live, (before, head, text) in zip(batch, taken, strict=True):
            arguments += [before, session_channel(live.session_id), head, text]
        off = await self._script(keys=[live.key for live in batch], args=arguments)
        for live, count, (_, _, text) in zip(batch, counts, taken, strict=True):
            live.taken(count, len(text))
        for index in off:
            await self._set_whole(batch[index - 1])

    async def _set_whole(self, live: LiveReply) -> None:
        """Redis holds another text than we do: it was emptied. Set all that is out."""
        text = live.text()[: live._sent]
        await self._redis.set(live.key, text.encode(), ex=LIVE_SECONDS)

    async def finish(self, live: LiveReply) -> None:
        """Publish the rest of a reply, unless Redis is away, and let its live text go; bounded."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                await self._flushed_all(live)
        self._wanted.pop(live.key, None)
        self._ended.append(live.key)
        del self._ended[:-MOST_AT_ONCE]
        self._ready.set()

    async def _flushed_all(self, live: LiveReply) -> None:
        while live.pending and not self.away:
            flushed = self._flushed
            self.wanted(live)
            await flushed.wait()

    async def aclose(self) -> None:
        await self._redis.aclose()

"""Text on its way: from the providers' streams to Redis, by one publisher a process.

At once when idle. Under load whatever has come in since the last publish goes out together, as one message for
all chat sessions: never one publish per token. While Redis is away the text waits here and in the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from chat_backend.config import Settings
from chat_backend.domain import limits
from chat_backend.domain.errors import ReplyTooLong
from chat_backend.protocol.envelope import Delta, pack_deltas
from chat_backend.realtime.channels import LIVE_TEXTS, live_text_key, session_channel
from chat_backend.realtime.connection import async_client
from chat_backend.realtime.live_text import APPEND_AND_PUBLISH, LIVE_SECONDS

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
# From one publish to the next: a pause that nobody sees gathers what a few hundred replies bring meanwhile. Under
# load a publish takes longer, and so does the pause: no more than a fifth of the time goes into publishing.
PACE_SECONDS = 0.002
LONGEST_PACE_SECONDS = 0.015
PACE_RATIO = 5
# The end of a reply is stored after this, whatever Redis does: it holds all text. Where hundreds of replies are on
# their way it would overtake the last of the text: so it waits while publishes go out, but not for one that hangs.
FINISH_SECONDS = 1.0
HANGING_SECONDS = 0.3
MOST_AT_ONCE = 500
MOST_CHARACTERS_AT_ONCE = 500_000


@dataclass
class LiveReply:
    """The text of one running attempt. Written on the event loop; `text()` may be called from any thread."""

    session_id: UUID
    message_id: UUID
    attempt: int
    publisher: LivePublisher
    # Not shown to anyone, and not stored as the reply's text: a summary, a title.
    quiet: bool = False
    # Called on the loop at the first piece.
    on_first: Callable[[], None] | None = None
    first_at: float | None = None
    length: int = 0
    unsaved: bool = False
    ended: bool = False
    _parts: list[str] = field(default_factory=list)
    _pending: list[str] = field(default_factory=list)
    _sent: int = 0
    _sent_bytes: int = 0

    def __post_init__(self) -> None:
        self.key = live_text_key(self.message_id, self.attempt)
        self._channel, self._message_id = session_channel(self.session_id), str(self.message_id)

    def write(self, piece: str) -> None:
        """Add a piece. Raises ReplyTooLong at the limit; what fits is kept."""
        room = limits.REPLY_CHARACTERS - self.length
        kept = piece[:room]
        if kept:
            if self.first_at is None:
                self._begin()
            self._parts.append(kept)
            self.length += len(kept)
            if not self.quiet:
                self._pending.append(kept)
                self.unsaved = True
                self.publisher.wanted(self)
        if len(piece) > room:
            raise ReplyTooLong(f"The reply is longer than {limits.REPLY_CHARACTERS} characters.")

    def _begin(self) -> None:
        self.first_at = time.monotonic()
        if self.on_first is not None:
            self.on_first()

    def text(self) -> str:
        """Return the whole text so far."""
        return "".join(self._parts)

    @property
    def pending(self) -> bool:
        return bool(self._pending)

    @property
    def out(self) -> str:
        """What of the text is published."""
        return self.text()[: self._sent]

    @property
    def out_bytes(self) -> int:
        return self._sent_bytes

    def next(self) -> Delta:
        """Return what is pending, in one piece."""
        if len(self._pending) > 1:
            self._pending = ["".join(self._pending)]
        return Delta(self._channel, self._message_id, self.attempt, self._sent, self._pending[0])

    def published(self, delta: Delta, size: int) -> None:
        """Note that the first of what is pending is out, and how many bytes that was."""
        self._sent += len(delta.text)
        self._sent_bytes += size
        del self._pending[0]


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
            began = time.monotonic()
            await self._flush()
            took = time.monotonic() - began
            await asyncio.sleep(min(LONGEST_PACE_SECONDS, max(PACE_SECONDS, PACE_RATIO * took)) - took)

    async def _flush(self) -> None:
        batch: list[LiveReply] = []
        ended, self._ended = self._ended, []
        try:
            batch = self._next_batch()
            if batch:
                await self._send(batch)
            if ended:
                await self._redis.unlink(*ended)
            self.away = False
        except Exception as error:  # not only RedisAway: one publisher serves all replies and must not end
            self._failed(batch, error)
            self._ended = (ended + self._ended)[-MOST_AT_ONCE:]
            await asyncio.sleep(PAUSE_SECONDS)
        if self._wanted:
            self._ready.set()
        self._flushed.set()
        self._flushed = asyncio.Event()

    def _next_batch(self) -> list[LiveReply]:
        batch: list[LiveReply] = []
        room = MOST_CHARACTERS_AT_ONCE
        for key in list(self._wanted)[:MOST_AT_ONCE]:
            if room > 0 and (live := self._wanted.pop(key)).pending:
                batch.append(live)
                room -= len(live.next().text)
        return batch

    def _failed(self, batch: list[LiveReply], error: Exception) -> None:
        if not self.away:
            log.warning("text on its way has to wait", extra={"action": "live", "error": type(error).__name__})
        self.away = True
        for live in batch:
            # Whether Redis has taken it is unknown: the comparison of lengths will tell.
            if live.pending and not live.ended:
                self._wanted.setdefault(live.key, live)

    async def _send(self, batch: list[LiveReply]) -> None:
        deltas = [live.next() for live in batch]
        texts = [delta.text.encode() for delta in deltas]
        arguments: list[bytes | int | str] = [LIVE_SECONDS, LIVE_TEXTS, pack_deltas(deltas)]
        for live, text in zip(batch, texts, strict=True):
            arguments += [live.out_bytes, text]
        off = await self._script(keys=[live.key for live in batch], args=arguments)
        for live, delta, text in zip(batch, deltas, texts, strict=True):
            live.published(delta, len(text))
        for index in off:
            await self._set_whole(batch[index - 1])

    async def _set_whole(self, live: LiveReply) -> None:
        """Redis holds another text than we do: it was emptied. Set all that is out."""
        await self._redis.set(live.key, live.out.encode(), ex=LIVE_SECONDS)

    async def finish(self, live: LiveReply) -> None:
        """Publish the rest of a reply, unless Redis is away, and let its live text go; bounded."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                await self._flushed_all(live)
        live.ended = True
        self._wanted.pop(live.key, None)
        self._ended.append(live.key)
        del self._ended[:-MOST_AT_ONCE]
        self._ready.set()

    async def _flushed_all(self, live: LiveReply) -> None:
        while live.pending and not self.away:
            flushed = self._flushed
            self.wanted(live)
            async with asyncio.timeout(HANGING_SECONDS):
                await flushed.wait()

    async def aclose(self) -> None:
        await self._redis.aclose()

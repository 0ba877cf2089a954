"""A reply being read: bytes in, text out, and what is known at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from chat_backend.domain.errors import StreamBroken
from workers.providers.base import Completion
from workers.providers.deadlines import Stage
from workers.providers.refusals import error_in, failure, refusal_in_stream
from workers.providers.sse import EventSplitter
from workers.providers.text import TextMender, parse, short, storable

MOST_STREAM_BYTES = 32 * 1024 * 1024
MOST_BODY_BYTES = 8 * 1024 * 1024


class ReplyReader:
    """Reads one reply of an OpenAI-compatible server, streamed or whole.

    Text goes to `on_text`, once for each `feed`; what is said about the reply to `known`. Raises StreamBroken for
    what can't be read, and what `refusals` says for an error object.
    """

    def __init__(self, on_text: Callable[[str], None], known: Completion | None = None) -> None:
        self.stage = Stage.WAITING
        self.known = known or Completion()
        self._headers: Mapping[str, str] = {}
        self._on_text = on_text
        self._splitter = EventSplitter()
        self._mender = TextMender()
        self._texts: list[str] = []
        self._received = 0
        self._body: bytearray | None = None

    @property
    def finished(self) -> bool:
        return self.stage >= Stage.FINISHED

    def begin(self, http_status: int, headers: Mapping[str, str]) -> None:
        """Take note of the head of the response."""
        self._headers = headers
        self.known.http_status = http_status
        self.known.generation_id = short(headers.get("x-generation-id"))

    def feed(self, received: bytes) -> bool:
        """Take what came in; tell whether there was an event in it. Comments are none."""
        # By its first byte, not its type: servers that ignore `stream` are not careful about types either.
        if not self._received and received.lstrip()[:1] == b"{":
            self._body = bytearray()
        self._count(len(received))
        if self._body is not None:
            self._body += received
            return False
        return self._take(self._splitter.feed(received))

    def end(self) -> None:
        """Take note that the body ended. Raises StreamBroken when the reply had not."""
        if self._body is not None:
            self._take_whole(parse(bytes(self._body)))
        elif not self.finished:
            self._take(self._splitter.end())
        if not self.finished:
            raise StreamBroken("The provider's stream ended before the reply did.")

    def flush(self, *, last: bool = False) -> None:
        """Hand on the text read so far."""
        text = self._mender.mend("".join(self._texts)) + (self._mender.end() if last else "")
        self._texts.clear()
        if text:
            self._on_text(text)

    def _count(self, more: int) -> None:
        self._received += more
        if self._received > (MOST_STREAM_BYTES if self._body is None else MOST_BODY_BYTES):
            # It would do so again, and be billed again.
            raise StreamBroken("The provider sent more than a reply may hold.", retryable=False)

    def _take(self, events: list[bytes]) -> bool:
        try:
            for event in events:
                if self.stage is Stage.DONE:
                    break
                self._take_event(event)
        finally:
            # What was written before an error is kept.
            if self._texts or self.finished:
                self.flush(last=self.finished)
        return bool(events)

    def _take_event(self, event: bytes) -> None:
        if event == b"[DONE]":
            if self.stage is Stage.WAITING:
                # Said by a server that was interrupted by somebody else's request (llama-cpp-python).
                raise StreamBroken("The provider ended its reply before it had begun.")
            self.stage = Stage.DONE
            return
        chunk = parse(event)
        try:
            self._take_object(chunk)
            if choices := chunk.get("choices"):
                self._take_choice(choices[0], choices[0].get("delta") or {})
        except (AttributeError, KeyError, TypeError):
            raise StreamBroken("The provider sent something that is not a reply.") from None

    def _take_object(self, chunk: dict[str, Any]) -> None:
        if isinstance(usage := chunk.get("usage"), dict) and usage:
            self.known.usage = storable(usage)
        if self.known.model is None:
            self.known.model = short(chunk.get("model"))
            self.known.generation_id = self.known.generation_id or short(chunk.get("id"))
        if error := error_in(chunk):
            raise refusal_in_stream(error, self._headers)

    def _take_choice(self, choice: dict[str, Any], written: dict[str, Any]) -> None:
        if choice.get("index"):
            return
        # A model that declines says so in a field of its own (OpenAI): it is what it answers.
        text = written.get("content") or written.get("refusal")
        if text:
            self._texts.append("" + text)  # anything but text raises
        thought = written.get("reasoning") or written.get("reasoning_content")
        if isinstance(thought, str):
            self.known.thought_bytes += len(thought.encode("utf-8", "replace"))
        if self.stage is Stage.WAITING and (text or thought):
            self.stage = Stage.WRITING
        if reason := choice.get("finish_reason"):
            self._finish(reason)

    def _finish(self, reason: object) -> None:
        if reason == "error":
            raise failure()
        self.known.finish_reason = short(reason)
        self.stage = Stage.FINISHED

    def _take_whole(self, body: Any) -> None:
        try:
            self._take_object(body)
            choice = body["choices"][0]
            self._take_choice(choice, choice["message"])
        except (AttributeError, IndexError, KeyError, TypeError):
            raise StreamBroken("The provider sent something that is not a reply.") from None
        # The body is whole JSON, so the reply is whole, whether or not it says why it ended.
        self.stage = Stage.DONE
        self.flush(last=True)

"""A reply being read: bytes in, text out, and what is known at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

from chat_backend.domain.errors import EmptyReply, ReplyTooLong, StreamBroken
from chat_backend.domain.limits import REPLY_CHARACTERS
from chat_backend.domain.thoughts import ThoughtSplitter
from workers.providers.base import Completion
from workers.providers.content import has_unread, text_in
from workers.providers.deadlines import Stage
from workers.providers.finish_reasons import explains_no_text, understood
from workers.providers.refusals import refusal_in_stream
from workers.providers.sse import DONE, KEEP_ALIVE, ErrorEvent, EventSplitter
from workers.providers.stream_errors import error_in_event
from workers.providers.text import TextMender, parse, short, storable

MOST_STREAM_BYTES = 32 * 1024 * 1024
MOST_BODY_BYTES = 8 * 1024 * 1024
# White space and the bytes of a byte order mark.
_BEFORE_ANYTHING = b" \t\r\n\xef\xbb\xbf"
# Tokens of a reply without text: marks of its beginning and end. Where more are counted, there was a text.
_MOST_SILENT = 10


class Finish(IntEnum):
    """How sure it is that the text so far is whole, by the finish reasons that came."""

    NONE = 0  # no finish reason yet
    DOUBTFUL = 1  # text goes on after a finish reason: this server's finish reasons mean little
    WITH_TEXT = 2  # the first finish reason came together with text
    ALONE = 3  # it came by itself, after the text


class ReplyReader:
    """Reads one reply of an OpenAI-compatible server, streamed or whole.

    Text goes to `on_text`, once for each `feed`; what is said about the reply to `known`. Raises StreamBroken for
    what can't be read, EmptyReply where no text was found, and what `refusals` says for an error object.
    """

    def __init__(self, on_text: Callable[[str], None], known: Completion | None = None) -> None:
        self.stage = Stage.WAITING
        self.known = known or Completion()
        self._headers: Mapping[str, str] = {}
        self._on_text = on_text
        self._splitter = EventSplitter()
        self._mender = TextMender()
        self._thoughts = ThoughtSplitter()
        self._texts: list[str] = []
        self._received = 0
        self._begun = False
        self._body: bytearray | None = None
        self._finish = Finish.NONE
        self._reason_with_text = False
        # Characters: of all text, reasoning in it included, and of all reasoning.
        self._written = 0
        self._reasoned = 0
        self._in_messages = False
        self._answered = False
        self._found_content = False
        self._found_unread = False

    @property
    def may_be_whole(self) -> bool:
        """Whether the reply is whole if nothing more comes."""
        return self.stage >= Stage.ENDING or (self._finish > Finish.NONE and self.stage is Stage.WRITING)

    @property
    def is_whole(self) -> bool:
        """Whether the reply is whole whatever comes: what breaks afterwards takes nothing away."""
        return self.stage >= Stage.ENDING or (self._finish is Finish.ALONE and self.stage is Stage.WRITING)

    def begin(self, http_status: int, headers: Mapping[str, str]) -> None:
        """Take note of the head of the response."""
        self._headers = headers
        self.known.http_status = http_status
        self.known.generation_id = short(headers.get("x-generation-id"))

    def feed(self, received: bytes) -> bool:
        """Take what came in; tell whether it was a sign of life.

        An event always is one. Until the reply may be whole, comments, blank lines and white space are, too.
        """
        if not self._begun:
            received = received.lstrip(_BEFORE_ANYTHING)
            # By the first byte, not the type: servers that ignore `stream` are not careful about types either.
            if received.startswith((b"{", b"[")):
                self._body = bytearray()
            self._begun = bool(received)
        self._count(len(received))
        if self._body is not None:
            self._body += received
            return True
        if self._take(self._splitter.feed(received)):
            return True
        return not self.may_be_whole and (not received or b"\n" in received or b"\r" in received)

    def end(self) -> None:
        """Take note that the body ended. Raises StreamBroken when the reply had not."""
        if self._body is not None:
            self._take_body(bytes(self._body))
        elif self.stage is not Stage.DONE:
            self._take(self._splitter.end())
        # Where nothing tells the length of the body, its end may be a cut.
        unsure = self._finish is Finish.DOUBTFUL and self.stage < Stage.ENDING and not self._is_framed()
        if unsure or not (self._finish or self.stage >= Stage.ENDING):
            raise StreamBroken("The provider's stream ended before the reply did.")

    def conclude(self) -> None:
        """Take note that nothing more comes. Raises EmptyReply where no text was found and nothing says why."""
        self.flush(last=True)
        if self._answered or explains_no_text(self.known.finish_reason):
            return
        counts = self.known.counts
        if self._reasoned or counts.reasoning_tokens:
            raise EmptyReply("The model thought, and ended its reply without an answer.")
        if self._found_unread or not self._found_content or (counts.completion_tokens or 0) > _MOST_SILENT:
            raise EmptyReply("The provider ended its reply without a text that could be found.")

    def flush(self, *, last: bool = False) -> None:
        """Hand on the text read so far."""
        text = self._mender.mend("".join(self._texts)) + (self._mender.end() if last else "")
        self._texts.clear()
        self._written += len(text)
        if not self._thoughts.answering:
            reasoning, text = self._thoughts.feed(text)
            if last:
                more, rest = self._thoughts.end()
                reasoning, text = reasoning + more, text + rest
            self._reason(reasoning)
        if text:
            self._answered = True
            self._on_text(text)

    def _is_framed(self) -> bool:
        return "transfer-encoding" in self._headers or "content-length" in self._headers

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
            if self._texts:
                self.flush()
        return bool(events)

    def _take_event(self, event: bytes) -> None:
        if type(event) is ErrorEvent:
            raise refusal_in_stream(_error_of(event), self._headers)
        if event.startswith(b"{"):
            self._take_chunk(parse(event))
            return
        event = event.strip(_BEFORE_ANYTHING)
        word = event.strip(b'"')
        if word.upper() == DONE:
            self._take_done()
        elif word and word.lower() not in KEEP_ALIVE:
            found = parse(event)
            for chunk in found if isinstance(found, list) else [found]:
                self._take_chunk(chunk)

    def _take_done(self) -> None:
        if self.stage is Stage.WAITING and not self._finish:
            # Said by a server that was interrupted by somebody else's request (llama-cpp-python).
            raise StreamBroken("The provider ended its reply before it had begun.")
        self.stage = Stage.DONE

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        try:
            choices = chunk.get("choices")
            if isinstance(usage := chunk.get("usage"), dict) and usage:
                self.known.usage = storable(usage)
            if self.known.model is None:
                self.known.model = short(chunk.get("model"))
                self.known.generation_id = self.known.generation_id or short(chunk.get("id"))
            is_plain = choices and "error" not in chunk and "base_resp" not in chunk and chunk.get("object") != "error"
            if not is_plain and (error := error_in_event(chunk)):
                raise refusal_in_stream(error, self._headers)
            if choices:
                self._take_choice(choices[0])
            elif usage and self._finish:
                self.stage = Stage.ENDING
        except (AttributeError, KeyError, TypeError, RecursionError):
            raise StreamBroken("The provider sent something that is not a reply.") from None

    def _take_choice(self, choice: dict[str, Any]) -> None:
        if choice.get("index"):
            return
        delta, reasoning = choice.get("delta"), ""
        text = delta.get("content") if delta and (len(delta) == 1 or (len(delta) == 2 and "role" in delta)) else None
        if text and isinstance(text, str):
            self._texts.append(text)
        else:
            text, reasoning = self._look(choice)
            if text:
                self._texts.append(text)
            if reasoning:
                self._reason(reasoning)
        if (text or reasoning) and self.stage is not Stage.WRITING:
            self.stage = Stage.WRITING
        if (reason := choice.get("finish_reason")) or self._finish:
            self._weigh(understood(reason), said=bool(text or reasoning))

    def _look(self, choice: dict[str, Any]) -> tuple[str, str]:
        """Look for the text and the reasoning in every place where they may be."""
        if error := choice.get("error"):
            raise refusal_in_stream(error, self._headers)
        delta, message = choice.get("delta"), choice.get("message")
        written = delta or message or {}
        if isinstance(written, str):
            written = {"content": written}
        text, reasoning = text_in(written)
        if "content" in written or text:
            self._found_content = True
        elif isinstance(choice.get("text"), str):
            text = choice["text"]
            self._found_content = True
        if not (text or reasoning) and has_unread(written):
            self._found_unread = True
        if message and not delta:
            return self._unrepeated(text, reasoning)
        return text, reasoning

    def _unrepeated(self, text: str, reasoning: str) -> tuple[str, str]:
        """Leave out what a `message` repeats: some servers send the whole of it after its deltas (MiniMax)."""
        before = self._written + sum(map(len, self._texts))
        if self._in_messages or not before:
            self._in_messages = True
            return text, reasoning
        return text[before:] if len(text) >= before else text, ""

    def _reason(self, reasoning: str) -> None:
        self.known.thought_bytes += len(reasoning.encode("utf-8", "replace"))
        self._reasoned += len(reasoning)
        if self._reasoned > REPLY_CHARACTERS:
            raise ReplyTooLong(f"The reasoning is longer than {REPLY_CHARACTERS} characters.")

    def _weigh(self, reason: str | None, *, said: bool) -> None:
        if reason:
            self.known.finish_reason = reason
        if said:
            if self._finish:
                self._finish = Finish.DOUBTFUL
            elif reason:
                self._finish = Finish.WITH_TEXT
            self._reason_with_text = bool(reason)
        elif reason and not (self._finish and self._reason_with_text):
            self._finish = Finish.ALONE

    def _take_body(self, body: bytes) -> None:
        try:
            found = parse(body)
        except StreamBroken:
            # Not one JSON value, but perhaps one a line.
            self._take(self._splitter.feed(body))
            self._take(self._splitter.end())
            return
        chunks = found if isinstance(found, list) else [found]
        try:
            for chunk in chunks:
                self._take_chunk(chunk)
        finally:
            self.flush()
        if len(chunks) == 1 and _is_completion(chunks[0]):
            # The body is whole JSON, so the reply is whole, whether or not it says why it ended.
            self.stage = Stage.DONE


def _is_completion(body: dict[str, Any]) -> bool:
    return bool(body.get("choices")) and not body["choices"][0].get("delta")


def _error_of(event: bytes) -> Any:
    """Return what an event of an error says of it."""
    try:
        found = parse(event)
    except StreamBroken:
        return None
    return (error_in_event(found) or found) if isinstance(found, dict) else found

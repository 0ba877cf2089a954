"""The stub's script language: what a provider shall do with one request. See provider_stub for the words."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

PRESETS = {
    "llamacpp": {"no_usage": "1", "empty_deltas": "1", "uuid_names": "1"},
    "litellm": {"usage": "empty_delta", "error_code": "text"},
    "transformers": {"no_done": "1", "usage": "finish"},
    "mockllm": {"new_id": "1", "content_null": "1", "no_usage": "1"},
    "openrouter": {"comments": "3", "usage": "empty_delta"},
    "ollama": {"usage": "later"},
}


@dataclass(frozen=True)
class Script:
    """One request's script: words with values, read with defaults."""

    words: dict[str, str] = field(default_factory=dict)
    fallback_tag: str = "w"

    def __contains__(self, word: str) -> bool:
        return word in self.words

    def text(self, word: str, default: str = "") -> str:
        return self.words.get(word, default)

    def number(self, word: str, default: float) -> float:
        return float(self.words.get(word) or default)

    def count(self, word: str, default: int) -> int:
        return int(self.words.get(word) or default)

    @property
    def tag(self) -> str:
        return self.text("tag", self.fallback_tag)

    @property
    def tokens(self) -> int:
        return self.count("tokens", 10)

    def within(self, max_tokens: int | None) -> Script:
        """Return the script that ends where the request wants it to."""
        if max_tokens is None or max_tokens >= self.tokens or "boundless" in self:
            return self
        return Script(self.words | {"tokens": str(max_tokens), "finish": "length"}, self.fallback_tag)


def tag_of(last_user_message: str) -> str:
    """Name a prompt in a few letters, so that every token tells which prompt it answers."""
    return f"{zlib.crc32(last_user_message.encode('utf-8', 'replace')):08x}"[:4]


def token(tag: str, number: int) -> str:
    return f"{tag}.{number} "


def expected_text(tag: str, tokens: int) -> str:
    """Give the whole text of a reply without oddities."""
    return "".join(token(tag, number) for number in range(1, tokens + 1))


def parse_script(text: str) -> dict[str, str]:
    """Read `stub:word=value,word` out of a model's name or a message; empty where there is none."""
    # The last one: questions without replies are sent as one message with what follows them.
    _, found, rest = text.rpartition("stub:")
    words: dict[str, str] = {}
    for part in rest.split()[0].split(",") if found and rest.strip() else []:
        word, _, value = part.partition("=")
        words |= PRESETS.get(value, {}) if word == "server" else {word: value}
    return words


def script_for(model: str, last_user_message: str) -> Script:
    """Put together what the model's name and the last user message ask for; the message wins."""
    words = parse_script(model) | parse_script(last_user_message)
    return Script(words, tag_of(last_user_message))


def chunks(script: Script, model: str) -> Iterator[tuple[str, bytes]]:
    """Give (text, JSON of the chunk) for the role, every token, the finish and the usage."""
    numbers = itertools.count()

    def chunk(delta: dict[str, Any] | None, reason: str | None = None, **more: Any) -> bytes:
        name = f"stub-{script.tag}" + (f"-{next(numbers)}" if "new_id" in script else "")
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
        head = {"id": name, "object": "chat.completion.chunk", "created": 1, "model": model}
        written = orjson.dumps(head | {"choices": choices, "x_unknown": {"a": [1]}} | more)
        # Python writes it bare where it is asked for a number that is none; orjson would not.
        return written.replace(b'"cost":null', b'"cost":' + script.text("cost").encode())

    yield "", chunk({"role": "assistant", "content": None if "content_null" in script else ""})
    for number in range(1, script.count("reasoning", 0) + 1):
        yield "", chunk({"reasoning": f"thinking {number} ", "content": ""})
    for number in range(1, script.tokens + 1):
        if "empty_deltas" in script:
            yield "", chunk({})
        yield from _odd_or_plain(script, number, chunk)
    yield from _ending(script, chunk)


def _odd_or_plain(script: Script, number: int, chunk: Any) -> Iterator[tuple[str, bytes]]:
    text = token(script.tag, number)
    if "declines" in script:
        yield text, chunk({"content": None, "refusal": text})
    elif number != 1:
        yield text, chunk({"content": text})
    elif "nul" in script:
        yield text, chunk({"content": "\0" + text})
    elif "surrogate" in script:
        yield "\ufffd" + text, chunk({"content": "@" + text}).replace(b"@", rb"\ud800")
    elif "split_pair" in script:
        yield "", chunk({"content": "@"}).replace(b"@", rb"\ud83d")
        yield "\U0001f600" + text, chunk({"content": "@" + text}).replace(b"@", rb"\ude00")
    elif "escaped" in script:
        many = script.count("escaped", 0)
        yield "\U0001f600" * many + text, chunk({"content": "@" + text}).replace(b"@", rb"\ud83d\ude00" * many)
    elif "bad_utf8" in script:
        yield "\ufffd" + text, chunk({"content": "@" + text}).replace(b"@", b"\xff")
    elif "unicode" in script:
        odd = "привет 世界 \U0001f600 \u2028 \x85 \x0b "
        yield odd + text, chunk({"content": odd + text})
    else:
        yield text, chunk({"content": text})


def _ending(script: Script, chunk: Any) -> Iterator[tuple[str, bytes]]:
    counts = usage(script)
    kind = "none" if "no_usage" in script else script.text("usage", "later")
    on_finish = {"usage": counts} if kind == "finish" else {}
    if "no_finish" not in script:
        yield "", chunk({}, script.text("finish", "stop"), **on_finish)
    if kind == "later":
        yield "", chunk(None, usage=counts)
    if kind == "empty_delta":
        yield "", chunk({"content": ""}, usage=counts)


def usage(script: Script) -> dict[str, Any]:
    return {
        "prompt_tokens": 7,
        "completion_tokens": script.tokens,
        "total_tokens": 7 + script.tokens,
        "cost": script.number("cost", 0.001),
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": script.count("reasoning", 0)},
    }

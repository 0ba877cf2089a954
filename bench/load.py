"""The load: conversations beside each other, every token checked and timed."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import orjson

from bench.stub import Course

DEADLINE_SECONDS = 90.0
# What a target still does for a run after its last token belongs to it.
SETTLE_SECONDS = 0.3
MILLION = 1_000_000


class Tally:
    """What one viewer has seen of one reply: every token once, in order, and when."""

    def __init__(self, tokens: int) -> None:
        self.asked_at = self.first_at = self.last_at = 0
        self.delays: list[int] = []
        self.wrong = 0
        self.fault = ""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tokens = tokens
        self._next = 1
        self._texts: list[str] = []
        self._length = 0
        self._rest = ""

    @property
    def whole(self) -> bool:
        """Whether the reply came to its end, with nothing lost, doubled, out of order or changed."""
        return self.ended.done() and not self.wrong and len(self.delays) == self._tokens

    @property
    def lost(self) -> int:
        return max(0, self._tokens - len(self.delays))

    def take(self, start: int | None, text: str, at: int) -> None:
        """Take a piece of the reply, which begins at a position in it, where that was told."""
        self.first_at = self.first_at or at
        self.last_at = at
        self.wrong += start is not None and start != self._length
        self._length += len(text)
        self._texts.append(text)
        *tokens, self._rest = (self._rest + text).split(" ") if self._rest else text.split(" ")
        for token in tokens:
            number, _, sent = token.partition(":")
            self.wrong += int(number) != self._next
            self._next = int(number) + 1
            self.delays.append(at - int(sent))

    def grow(self, content: str, at: int) -> None:
        """Take the text so far."""
        self.take(None, content[self._length :], at)

    def end(self, content: str | None, at: int) -> None:
        """Take the end of the reply, and its whole text, where that is told: it may be ahead of the pieces."""
        known = "".join(self._texts)
        if content is not None and not content.startswith(known):
            self.wrong += 1
        elif content is not None and len(content) > len(known):
            self.take(len(known), content[len(known) :], at)
        if not self.ended.done():
            self.ended.set_result(None)

    def fail(self, why: str) -> None:
        """Note that the reply can't come to its end any more, unless it has."""
        if not self.ended.done():
            self.wrong, self.fault = self.wrong + 1, why
            self.ended.set_result(None)


class Ask(Protocol):
    """Begins one conversation at a target; what comes of it goes to the tally. Returns what can be closed."""

    def __call__(self, place: Any, tally: Tally) -> Awaitable[Any]: ...


def read_chat(
    tally: Tally, *, parse: Callable[[bytes], Any] = orjson.loads, whole: bool = False
) -> Callable[[bytes, int], None]:
    """Return what takes a chat's frames for a tally; `whole`: text comes as all of it so far, every time."""

    def receive(payload: bytes, at: int) -> None:
        frame = parse(payload)
        kind = frame["type"]
        if kind == "message_delta":
            tally.take(frame["start"], frame["text"], at)
        elif kind == "message_update":
            if frame["action"] in ("completed", "failed", "cancelled"):
                tally.end(frame["message"]["content"], at)
            elif frame["action"] == "streaming" and whole:
                tally.grow(frame["message"]["content"], at)
            elif frame["action"] in ("restarted", "streaming"):
                tally.wrong += 1  # nothing here gives reason to begin again or to repeat
        elif kind == "error":
            tally.fail(f"error {frame.get('error_code')}: {frame.get('error')}")

    return receive


# A thousand viewers get the same bytes: parsed once, as each would on a machine of its own.
parse_once = lru_cache(maxsize=4096)(orjson.loads)


def read_provider(tally: Tally) -> Callable[[bytes, int], None]:
    """Return what takes a provider's events for a tally."""

    def receive(event: bytes, at: int) -> None:
        if event == b"[DONE]":
            tally.end(None, at)
            return
        choices = orjson.loads(event)["choices"]
        text = choices[0]["delta"].get("content") if choices else None
        if text:
            tally.take(None, text, at)

    return receive


@dataclass(frozen=True)
class Load:
    """So many conversations, begun within so many seconds, each one reply long."""

    name: str
    replies: int
    course: Course = field(default_factory=Course)
    start_seconds: float = 1.5


@dataclass(frozen=True)
class Result:
    """What one run came to. Times are milliseconds; cpu is seconds by part."""

    replies: int
    done: int
    lost: int
    wrong: int
    tokens_per_second: float
    first_p50: float
    first_p99: float
    token_p50: float
    token_p99: float
    tokens: int
    cpu: dict[str, float]
    faults: dict[str, int]

    def cpu_per_1000(self, *parts: str) -> float:
        """Milliseconds of processor time for 1,000 tokens: of all parts, or of those named."""
        used = sum(seconds for part, seconds in self.cpu.items() if not parts or part in parts)
        return used * 1000 / max(1, self.tokens) * 1000


async def converse(ask: Ask, places: Sequence[Any], load: Load, *, cpu: Callable[[], dict[str, float]]) -> Result:
    """Hold the conversations of a load and return what came of them."""
    tallies = [Tally(load.course.tokens) for _ in range(load.replies)]
    gc.collect()
    gc.disable()
    before, began = cpu(), time.monotonic_ns()
    talks = [
        asyncio.ensure_future(_talk(ask, place, tally, number / load.replies * load.start_seconds))
        for number, (place, tally) in enumerate(zip(places, tallies, strict=True))
    ]
    _, late = await asyncio.wait(talks, timeout=DEADLINE_SECONDS)
    for talk in late:
        talk.cancel()
    await asyncio.gather(*talks, return_exceptions=True)
    await asyncio.sleep(SETTLE_SECONDS)
    after = cpu()
    gc.enable()
    used = {part: seconds - before[part] for part, seconds in after.items()}
    return _result(load, tallies, began, used)


async def _talk(ask: Ask, place: Any, tally: Tally, delay: float) -> None:
    await asyncio.sleep(delay)
    connection = None
    try:
        connection = await ask(place, tally)
        await tally.ended
    except (OSError, ValueError) as error:
        tally.fail(f"{type(error).__name__}: {error}")
    finally:
        if connection is not None:
            with suppress(OSError):
                connection.close()


def _result(load: Load, tallies: list[Tally], began: int, cpu: dict[str, float]) -> Result:
    delays = [delay for tally in tallies for delay in tally.delays]
    firsts = [tally.first_at - tally.asked_at for tally in tallies if tally.first_at]
    seconds = (max((tally.last_at for tally in tallies), default=0) - began) / 1e9
    return Result(
        replies=load.replies,
        done=sum(tally.whole for tally in tallies),
        lost=sum(tally.lost for tally in tallies),
        wrong=sum(tally.wrong for tally in tallies),
        tokens_per_second=len(delays) / seconds if delays else 0.0,
        first_p50=percentile(firsts, 50) / MILLION,
        first_p99=percentile(firsts, 99) / MILLION,
        token_p50=percentile(delays, 50) / MILLION,
        token_p99=percentile(delays, 99) / MILLION,
        tokens=len(delays),
        cpu=cpu,
        faults=dict(Counter(tally.fault or "not whole" for tally in tallies if not tally.whole)),
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile; NaN of nothing."""
    if len(values) < 2:
        return float(values[0]) if values else float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]

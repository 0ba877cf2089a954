"""The built-in demo: a pretended model behind the OpenAI-compatible interface, to try everything without one.

    python -m chat_backend.demo_model --port 9101

It listens on loopback only, answers to any model's name, and understands nothing. `help` lists what it does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import signal
import time
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web

TOKENS_A_SECOND = 40
SLOW_TOKENS_A_SECOND = 4
MOST_COUNTED = 1000
MOST_REMEMBERED = 1000

HELP = """I am the built-in demo model. I understand nothing, but I can show you things:

- **count to 20** counts
- **markdown** shows headings, lists, a table and code
- **long** writes a long text
- **slowly** anywhere in what you say makes me write slowly: time enough to cancel, or to kill a worker
- **fail** makes me fail each time, **fail once** only at the first attempt
- anything else comes back to you in another shape

For real answers set `LOCAL_LLM_BASE_URL`, or `OPENROUTER_API_KEY` and the provider OPENROUTER."""

MARKDOWN = """# A heading

Some *emphasis*, some **importance**, a bit of `code`, and a [link](https://example.com/).

1. One
2. Two
   - two and a half

| word | letters |
|---|---|
| demo | 4 |

```python
def greet(name: str) -> str:
    return f"Hello, {name}!"
```

> That was the built-in demo model."""


def _command(said: str) -> str:
    # Messages without replies come as one message, with blank lines between them.
    return said.strip().rpartition("\n\n")[2].strip().lower().rstrip(".!?")


def answer_to(said: str, turns: int) -> str:
    """Give the whole answer to what was said last, in a conversation of so many turns."""
    words = _command(said)
    for pattern, answer in ANSWERS:
        if found := re.search(pattern, words):
            return answer(found)
    return _echo(said, turns)


def _count(found: re.Match[str]) -> str:
    last = min(int(found[1]), MOST_COUNTED)
    return " ".join(str(number) for number in range(1, last + 1)) + " - there you are, from the built-in demo model."


def _long(found: re.Match[str]) -> str:
    sentence = "This is sentence {} of a long text by the built-in demo model, and it says nothing at all."
    paragraphs = [range(start, start + 5) for start in range(1, 60, 5)]
    return "\n\n".join(" ".join(sentence.format(number) for number in paragraph) for paragraph in paragraphs)


def _echo(said: str, turns: int) -> str:
    words = said.split()
    longest = max(words, key=len, default="")
    quoted = "\n".join(f"> {line}" for line in said.splitlines()) or "> (nothing)"
    return (
        f"You said:\n\n{quoted}\n\nThat is {len(words)} words and {len(said)} characters; the longest word is "
        f'"{longest}", and backwards the first one is "{words[0][::-1] if words else ""}". '
        f"It was turn {turns} of our conversation.\n\n"
        "I am the built-in demo model and understand nothing of it. Say **help** to see what I can do."
    )


ANSWERS: list[tuple[str, Callable[[re.Match[str]], str]]] = [
    (r"^help$", lambda found: HELP),
    (r"\bcount to (\d{1,6})\b", _count),
    (r"^(?:slowly )?markdown(?: slowly)?$", lambda found: MARKDOWN),
    (r"^(?:slowly )?long(?: slowly)?$", _long),
]


class DemoModel:
    """Answers requests; remembers only which ones it has failed already."""

    def __init__(self, *, tokens_a_second: float = TOKENS_A_SECOND) -> None:
        self._pause = 1 / tokens_a_second
        self._failed: dict[str, None] = {}

    async def models(self, request: web.Request) -> web.Response:
        model = {"id": "demo", "object": "model", "created": 0, "owned_by": "chat_backend"}
        return web.json_response({"object": "list", "data": [model]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        turns = body.get("messages") or []
        said = next((str(turn["content"]) for turn in reversed(turns) if turn.get("role") == "user"), "")
        if self._fails(said, turns):
            return web.json_response({"error": {"message": "You asked me to fail.", "code": 500}}, status=500)
        tokens = re.findall(r"\s*\S+\s*?", answer_to(said, len(turns)))[: body.get("max_tokens")]
        head = {"id": f"demo-{uuid.uuid4()}", "created": int(time.time()), "model": body.get("model") or "demo"}
        counts = _usage(turns, tokens)
        if not body.get("stream"):
            return web.json_response(_whole(head, tokens, counts))
        slow = TOKENS_A_SECOND / SLOW_TOKENS_A_SECOND if re.search(r"\bslowly\b", _command(said)) else 1
        return await _stream(request, head, tokens, counts, pause=self._pause * slow)

    def _fails(self, said: str, turns: list[Any]) -> bool:
        words = _command(said)
        if words != "fail once":
            return words == "fail"
        asked = json.dumps(turns)
        if asked in self._failed:
            del self._failed[asked]
            return False
        while len(self._failed) >= MOST_REMEMBERED:
            del self._failed[next(iter(self._failed))]
        self._failed[asked] = None
        return True


async def _stream(
    request: web.Request, head: dict[str, Any], tokens: list[str], counts: dict[str, int], *, pause: float
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)

    async def say(choices: list[dict[str, Any]], **more: Any) -> None:
        chunk = head | {"object": "chat.completion.chunk", "choices": choices} | more
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    await say([_delta({"role": "assistant", "content": ""})])
    for token in tokens:
        await asyncio.sleep(pause)
        await say([_delta({"content": token})])
    await say([_delta({}, "stop")])
    await say([], usage=counts)
    await response.write(b"data: [DONE]\n\n")
    return response


def _delta(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason}


def _whole(head: dict[str, Any], tokens: list[str], counts: dict[str, int]) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(tokens)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return head | {"object": "chat.completion", "choices": [choice], "usage": counts}


def _usage(turns: list[Any], tokens: list[str]) -> dict[str, int]:
    asked = sum(len(str(turn.get("content", "")).split()) for turn in turns)
    return {"prompt_tokens": asked, "completion_tokens": len(tokens), "total_tokens": asked + len(tokens)}


def application(demo: DemoModel) -> web.Application:
    app = web.Application(client_max_size=32 * 1024 * 1024)
    app.router.add_get("/v1/models", demo.models)
    app.router.add_post("/v1/chat/completions", demo.complete)
    return app


async def serve(port: int, stop: asyncio.Event) -> None:
    """Serve on loopback until told to stop; then cut what is being written, and be gone."""
    runner = web.AppRunner(application(DemoModel()), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await stop.wait()
    await runner.cleanup()


async def _run(port: int) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(port, stop)


def main() -> None:
    parser = argparse.ArgumentParser(description="The built-in demo model, on loopback.")
    parser.add_argument("--port", type=int, required=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(parser.parse_args().port))


if __name__ == "__main__":
    main()

"""A provider to test against: a real OpenAI-compatible HTTP server that does what the request's script says.

    python -m tests.support.provider_stub --port 9100
    with provider_stub() as stub: ... stub.base_url ... stub.ledger() ...

GET /v1/models, POST /v1/chat/completions (streamed or not), the same two under /bare, GET /ledger, DELETE /ledger.

A script is `stub:word=value,word,...` in the model's name or anywhere in the last user message, up to a space; the
message wins. Without one: ten tokens at once. Text is `TAG.1 TAG.2 ...`: words with running numbers; TAG is a
checksum of the last user message, or `tag=`. `expected_text(tag, tokens)` gives the whole.

 course      tokens=10  delay=0 (seconds between tokens)  first=0 (before the first)  burst=1 (tokens a write)
             tag=..  reasoning=N (thoughts first)  think=0 (before each)  finish=stop
             boundless (writes on past the request's max_tokens; else it ends there, with finish=length)
             times=N (faults only the first N times this model and message are asked, then all goes well)
 refusal     fail=STATUS  retry_after=SECONDS | date:SECONDS
             error_code=.. (in the object; `string`, `none`, `text`: the status, as LiteLLM says it)
             quotes=WORD (in the sentence)  flagged=REASON+REASON (what a moderation says, with the prompt in it)
             loading (says that the model is loading)
             uuid_names (400 without a word where X-Request-ID is no UUID)
             strict=FIELD+FIELD (422 naming the first of these that the body, or in lower case the headers, hold;
             `system`: 400 where there is a system message)
             redirect=URL  slow_error (hangs in the error's body)  long_error=BYTES
 silence     hang=headers | first (after the role) | stream (after `after=N` tokens) | error | end (after finish)
             | done (after [DONE]: never closes)  comments=N (before the text) | comments=forever
             ping=SECONDS (a comment so often, whatever else is sent)
             drip=SECONDS (between single bytes)
 breaks      cut=N (connection closed after N tokens, chunk not ended)  eof=N (clean end after N tokens)
             close (no chunks: the end of the connection is the end)  reset=N (RST)  drop (closed before the headers)
             stale (a connection that is used again is reset before the headers)
             garbage (not HTTP)  error_event=N (error object after N tokens; with error_code)  malformed=N  not_object=N
             then=malformed | error | long (after the finish)
 oddities    cost=NaN | Infinity (bare)  declines (says it as a refusal)  vllm_error (the error object is the body)
             escaped=N (so many emoji in one delta, written as escapes)
             nul  surrogate  split_pair  bad_utf8  unicode  new_id  content_null  empty_deltas  no_usage  no_done
             no_finish  usage=later|finish|empty_delta  bytes=N (writes of N bytes)  eol=cr|crlf  no_last_line
             whole (a JSON body although a stream was asked for)  whole_error  html  gzip  giant=BYTES (one line)
             head=BYTES (a header so long)  heads=N (so many headers)  encoding=WORD (plain, whatever it says)
 servers     server=llamacpp | litellm | transformers | mockllm | openrouter | ollama
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, cast
from uuid import UUID

import httpx
import orjson
from aiohttp import web

from tests.support.provider_ledger import Entry, Ledger, moment
from tests.support.provider_script import Script, chunks, expected_text, script_for, usage

__all__ = ["Stub", "application", "expected_text", "provider_stub"]

LEDGER = web.AppKey("ledger", Ledger)
FAULTS = {
    *("fail", "redirect", "hang", "drip", "cut", "eof", "reset", "drop", "garbage", "error_event", "malformed"),
    *("not_object", "giant", "gzip", "html", "whole_error", "no_finish", "comments", "slow_error", "long_error"),
}
MOST_BUFFERED_BYTES = 1_000_000


def application(ledger: Ledger | None = None) -> web.Application:
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app[LEDGER] = ledger or Ledger()
    for base in ("/v1", "/bare"):
        app.router.add_get(f"{base}/models", _models)
        app.router.add_post(f"{base}/chat/completions", _complete)
    app.router.add_get("/ledger", _read_ledger)
    app.router.add_delete("/ledger", _clear_ledger)
    return app


async def _models(request: web.Request) -> web.Response:
    request.app[LEDGER].models_asked += 1
    names = ("stub", "stub:tokens=200,delay=0.02")
    return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


async def _read_ledger(request: web.Request) -> web.Response:
    ledger = request.app[LEDGER]
    entries = [entry.as_json() for entry in ledger.entries]
    body = orjson.dumps({"requests": entries, "models_asked": ledger.models_asked})
    return web.Response(body=body, content_type="application/json")


async def _clear_ledger(request: web.Request) -> web.Response:
    request.app[LEDGER].clear()
    return web.Response(status=204)


def peer_port(request: web.Request) -> int:
    port: int = request.transport.get_extra_info("peername")[1] if request.transport else 0
    return port


async def _complete(request: web.Request) -> web.StreamResponse:
    body = orjson.loads(await request.read())
    ledger = request.app[LEDGER]
    entry = ledger.open(body, {name.lower(): value for name, value in request.headers.items()}, peer_port(request))
    script = script_for(entry.model, entry.last_user_message)
    if ledger.times_asked(entry) > script.count("times", 1_000_000):
        harmless = {word: value for word, value in script.words.items() if word not in FAULTS}
        script = Script(harmless, script.fallback_tag)
    script = script.within(entry.parameters.get("max_tokens"))
    try:
        return await Answer(request, entry, script).give()
    except asyncio.CancelledError:
        entry.disconnected = True
        raise
    except ConnectionError:
        entry.disconnected = True
        return web.Response()
    finally:
        entry.ended_at = moment()


def _is_uuid(name: str | None) -> bool:
    try:
        return name is None or bool(UUID(name))
    except ValueError:
        return False


@dataclass
class Answer:
    """One answer being given by its script."""

    request: web.Request
    entry: Entry
    script: Script

    async def give(self) -> web.StreamResponse:
        if self.script.text("hang") == "headers":
            await asyncio.Event().wait()
        if "drop" in self.script or ("stale" in self.script and self._is_used_again()):
            self.entry.dropped = True
            return self._break_off(b"", reset="stale" in self.script)
        if "garbage" in self.script:
            return self._break_off(b"this is not HTTP\r\n\r\n")
        if refused := self._strictly_refused():
            return refused
        if "uuid_names" in self.script and not _is_uuid(self.entry.headers.get("x-request-id")):
            self.entry.status = 400
            return web.Response(status=400)
        if "fail" in self.script or "redirect" in self.script:
            return await self._refuse()
        if "html" in self.script:
            return web.Response(text="<html>a router's page</html>", content_type="text/html")
        if not self.entry.stream or "whole" in self.script or "whole_error" in self.script:
            return await self._whole()
        return await self._stream()

    def _is_used_again(self) -> bool:
        others = (entry for entry in self.request.app[LEDGER].entries if entry is not self.entry)
        return any(other.peer_port == self.entry.peer_port for other in others)

    def _strictly_refused(self) -> web.Response | None:
        refused = self.script.text("strict").split("+") if "strict" in self.script else []
        name = next((word for word in refused if word in self.entry.parameters or word in self.entry.headers), None)
        if name:
            self.entry.status = 422
            fault = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
            return web.json_response({"detail": [fault]}, status=422)
        if "system" in refused and any(turn["role"] == "system" for turn in self.entry.turns):
            self.entry.status = 400
            return web.json_response({"error": {"message": "System role not supported"}}, status=400)
        return None

    async def _refuse(self) -> web.StreamResponse:
        status = self.entry.status = self.script.count("fail", 302)
        headers = {"Location": self.script.text("redirect")} if "redirect" in self.script else {}
        if wait := self.script.text("retry_after"):
            kind, _, seconds = wait.rpartition(":")
            headers["Retry-After"] = formatdate(moment()[1] + float(seconds), usegmt=True) if kind else wait
        body = orjson.dumps(self._error() | {"padding": "x" * self.script.count("long_error", 0)})
        response = web.StreamResponse(status=status, headers=headers)
        response.content_type = "application/json"
        await response.prepare(self.request)
        await response.write(body[:10])
        if "slow_error" in self.script:
            await asyncio.Event().wait()
        await response.write(body[10:])
        return response

    def _after_the_end(self, what: str) -> bytes:
        if what == "error":
            return orjson.dumps(self._error())
        return b"{oops" if what == "malformed" else b'{"x": "' + b"x" * 3_000_000 + b'"}'

    def _error(self) -> dict[str, Any]:
        status = str(self.entry.status or "")
        code = self.script.text("error_code", status)
        if "loading" in self.script:
            return {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}
        if code == "text":
            return {"error": {"message": "CANARY", "type": "throttling_error", "param": None, "code": status or "500"}}
        coded: dict[str, Any] = {} if code in ("", "none") else {"code": int(code) if code.isdigit() else code}
        canary = f"CANARY {self.script.text('quotes')} you said: {self.entry.last_user_message}"
        error = {"message": canary, "type": "stub_error"} | coded
        if "vllm_error" in self.script:
            return {"object": "error", "param": None} | error
        if reasons := self.script.text("flagged"):
            flagged = {
                "reasons": reasons.split("+"),
                "flagged_input": canary,
                "provider_name": "stub",
                "model_slug": "s",
            }
            error["metadata"] = flagged
        return {"error": error}

    async def _whole(self) -> web.Response:
        if "whole_error" in self.script:
            return web.json_response(self._error())
        await asyncio.sleep(self.script.number("first", 0) + self.script.tokens * self.script.number("delay", 0))
        text = expected_text(self.script.tag, self.script.tokens)
        self.entry.pieces.append(text)
        self.entry.finished = True
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": self.script.text("finish", "stop")}
        body = {"id": "stub", "object": "chat.completion", "model": self.entry.model, "choices": [choice]}
        self.entry.usage = None if "no_usage" in self.script else usage(self.script)
        return web.json_response(body | ({"usage": self.entry.usage} if self.entry.usage else {}))

    async def _stream(self) -> web.StreamResponse:
        wire = await Wire.open(self.request, self.script)
        if "ping" not in self.script:
            return await self._write(wire)
        pings = asyncio.ensure_future(self._ping(wire, self.script.number("ping", 0)))
        try:
            return await self._write(wire)
        finally:
            pings.cancel()

    async def _ping(self, wire: Wire, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await wire.write(b": ping\n\n")

    async def _write(self, wire: Wire) -> web.StreamResponse:
        if "giant" in self.script:
            await wire.write(b'data: {"choices": "' + b"x" * self.script.count("giant", 0) + b'"}\n\n')
        for number in range(self.script.count("comments", 0) if self.script.text("comments") != "forever" else 0):
            await wire.write(b": STUB PROCESSING %d\n\n" % number)
        while self.script.text("comments") == "forever":
            await wire.write(b": STUB PROCESSING\n\n")
            await asyncio.sleep(0.02)
        async for text, event in self._events():
            await wire.write(event)
            if text:
                self.entry.pieces.append(text)
            if b'"usage":' in event:
                self.entry.usage = usage(self.script)
            if ended := await self._trouble(wire):
                return ended
        if self.script.text("hang") == "end":
            await asyncio.Event().wait()
        if then := self.script.text("then"):
            await wire.write(b"data: " + self._after_the_end(then) + b"\n\n")
        if "no_done" not in self.script:
            await wire.write(b"data: [DONE]" + (b"" if "no_last_line" in self.script else b"\n\n"))
        self.entry.finished = True
        if self.script.text("hang") == "done":
            await asyncio.Event().wait()
        return await wire.end()

    async def _events(self) -> AsyncIterator[tuple[str, bytes]]:
        delay, burst = self.script.number("delay", 0), self.script.count("burst", 1)
        await asyncio.sleep(self.script.number("first", 0))
        clock, held, texts, count = asyncio.get_running_loop().time, b"", "", 0
        start = clock()
        for text, chunk in chunks(self.script, self.entry.model):
            held, texts, count = held + b"data: " + chunk + b"\n\n", texts + text, count + bool(text)
            if b'"reasoning"' in chunk:
                await asyncio.sleep(self.script.number("think", 0))
            if text and count % burst and count < self.script.tokens:
                continue
            yield texts, held
            held, texts = b"", ""
            if text and count < self.script.tokens:
                # By the clock, so that a busy stub does not slow the pace down.
                await asyncio.sleep(max(0.0, start + delay * count - clock()))

    async def _trouble(self, wire: Wire) -> web.StreamResponse | None:
        sent = len(self.entry.pieces)
        if self.script.text("hang") in ("first", "stream") and sent >= self._after():
            await asyncio.Event().wait()
        for word, payload in (("malformed", b"data: {oops\n\n"), ("not_object", b"data: [1]\n\n")):
            if word in self.script and sent == self.script.count(word, 0):
                await wire.write(payload)
        if "error_event" in self.script and sent >= self.script.count("error_event", 0):
            reason = [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]
            await wire.write(b"data: " + orjson.dumps(self._error() | {"choices": reason}) + b"\n\n")
            return await wire.end()
        if "eof" in self.script and sent >= self.script.count("eof", 0):
            return await wire.end()
        if "cut" in self.script and sent >= self.script.count("cut", 0):
            return self._break_off(b"")
        if "reset" in self.script and sent >= self.script.count("reset", 0):
            # Let what was sent arrive: a reset throws away what was not read.
            await asyncio.sleep(0.05)
            return self._break_off(b"", reset=True)
        return None

    def _after(self) -> int:
        return self.script.count("after", 1) if self.script.text("hang") == "stream" else 0

    def _break_off(self, last_words: bytes, *, reset: bool = False) -> web.Response:
        transport = self.request.transport
        assert transport is not None
        if last_words:
            transport.write(last_words)
        if reset:
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort() if reset else transport.close()
        return web.Response()


class Wire:
    """An event stream being written; past the head straight to the transport, for tokens must be cheap."""

    def __init__(self, response: web.StreamResponse, transport: asyncio.Transport, script: Script) -> None:
        self._response = response
        self._transport = transport
        self._script = script
        self._plain = "close" in script
        self._slow = "drip" in script or "bytes" in script or "eol" in script

    @classmethod
    async def open(cls, request: web.Request, script: Script) -> Wire:
        headers = {"Content-Type": "text/event-stream", "X-Generation-Id": f"gen-{script.tag}", "Set-Cookie": "stub=1"}
        if "gzip" in script or "encoding" in script:
            headers["Content-Encoding"] = script.text("encoding", "gzip")
        if "head" in script:
            headers["X-Policy"] = "p" * script.count("head", 0)
        headers |= {f"X-Policy-{number}": "p" for number in range(script.count("heads", 0))}
        response = web.StreamResponse(headers=headers)
        if "close" in script:
            response.force_close()
            response.headers["Connection"] = "close"
        transport = cast(asyncio.Transport, request.transport)
        if "close" in script:
            head = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
            transport.write(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode())
        else:
            await response.prepare(request)
            await response.write(b": hello\n\n")
        return cls(response, transport, script)

    async def write(self, event: bytes) -> None:
        for part in self._parts(event) if self._slow else (event,):
            self._send(part if self._plain else b"%x\r\n%b\r\n" % (len(part), part))
            if self._slow:
                await asyncio.sleep(self._script.number("drip", 0))
        while self._transport.get_write_buffer_size() > MOST_BUFFERED_BYTES:
            await asyncio.sleep(0.01)

    async def end(self) -> web.StreamResponse:
        if self._plain:
            self._transport.close()
            return web.Response()
        await self._response.write_eof()
        return self._response

    def _send(self, data: bytes) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)

    def _parts(self, event: bytes) -> Iterator[bytes]:
        event = event.replace(b"\n", {"cr": b"\r", "crlf": b"\r\n"}.get(self._script.text("eol"), b"\n"))
        size = self._script.count("bytes", 1 if "drip" in self._script else len(event))
        yield from (event[start : start + size] for start in range(0, len(event), size))


@dataclass
class Stub:
    """A running stub, seen from a test of the same process: looking on asks it nothing, and costs it no time."""

    port: int
    book: Ledger
    scheme: str = "http"

    @property
    def base_url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"

    def ledger(self) -> list[dict[str, Any]]:
        return [entry.as_json() for entry in list(self.book.entries)]

    @property
    def models_asked(self) -> int:
        """How often the list of models was asked for."""
        return self.book.models_asked

    def clear(self) -> None:
        httpx.delete(f"http://127.0.0.1:{self.port}/ledger", trust_env=False, timeout=30)


async def _serve(
    port: int,
    started: Any,
    stop: asyncio.Event,
    ledger: Ledger | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    # Cancelling handlers is how the ledger learns at once that a client has gone.
    runner = web.AppRunner(application(ledger), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", port))
    # A full backlog costs a newcomer a second: hundreds of streams begin at once.
    await web.SockSite(runner, listener, backlog=1024, ssl_context=tls).start()
    started(listener.getsockname()[1])
    await stop.wait()
    await runner.cleanup()


@contextlib.contextmanager
def provider_stub(port: int = 0, *, tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    """Run a stub in a thread of this process."""
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    stub = Stub(0, Ledger(), "https" if tls else "http")

    def started(bound: int) -> None:
        stub.port = bound
        ready.set()

    thread = threading.Thread(
        target=loop.run_until_complete, args=[_serve(port, started, stop, stub.book, tls)], daemon=True
    )
    thread.start()
    assert ready.wait(10), "the stub did not start"
    try:
        yield stub
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A provider to test against.")
    parser.add_argument("--port", type=int, default=9100)
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    port = parser.parse_args().port
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(port, lambda bound: print(f"listening on {bound}", flush=True), asyncio.Event()))


if __name__ == "__main__":
    main()

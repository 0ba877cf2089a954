"""Many conversations at once, each watched by its own viewer."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import connect

from tests.support.chat import API

START_SECONDS = 1.5
OPENING_AT_ONCE = 50


@dataclass
class Watched:
    """What one viewer saw of its one conversation."""

    pieces: list[str] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)
    in_order: bool = True


def converse(url: str, conversations: int, *, model: str, seconds: float) -> list[Watched]:
    """Hold so many conversations at once, begun within 1.5 s, and return what their viewers saw."""
    return asyncio.run(_converse(url, conversations, model, seconds))


async def _converse(url: str, conversations: int, model: str, seconds: float) -> list[Watched]:
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=url + API, limits=limits, timeout=60, trust_env=False) as http:
        sessions = await asyncio.gather(*(_session(http, model, number) for number in range(conversations)))
    ready, opening = asyncio.Barrier(conversations), asyncio.Semaphore(OPENING_AT_ONCE)
    async with asyncio.timeout(seconds):
        return await asyncio.gather(
            *(
                _watch(url, session_id, number, opening, ready, delay=number / conversations * START_SECONDS)
                for number, session_id in enumerate(sessions)
            )
        )


async def _session(http: httpx.AsyncClient, model: str, number: int) -> str:
    body = {"llm_provider": "LOCAL", "llm_model": f"{model},tag=c{number}"}
    answer = await http.post("/sessions", json=body, headers={"X-User-ID": f"user-{number}"})
    assert answer.status_code == 201, answer.text
    session_id: str = answer.json()["id"]
    return session_id


async def _watch(
    url: str, session_id: str, number: int, opening: asyncio.Semaphore, ready: asyncio.Barrier, *, delay: float
) -> Watched:
    query = urlencode({"deltas": 1, "user_id": f"user-{number}"})
    address = f"{url.replace('http', 'ws', 1)}{API}/sessions/{session_id}/websocket?{query}"
    seen = Watched()
    async with AsyncExitStack() as stack:
        async with opening:
            # No pings of its own: the machine is busy, and so is whoever answers them.
            how = connect(address, proxy=None, max_size=None, open_timeout=30, ping_interval=None)
            socket = await stack.enter_async_context(how)
            await socket.recv()
        await ready.wait()
        await asyncio.sleep(delay)
        await socket.send(json.dumps({"type": "send_message", "content": "Count."}))
        length = 0
        while not seen.final:
            frame = json.loads(await socket.recv())
            assert frame["type"] != "error", frame
            if frame["type"] == "message_delta":
                seen.in_order &= frame["start"] == length
                length += len(frame["text"])
                seen.pieces.append(frame["text"])
            elif frame.get("action") in ("completed", "failed", "cancelled"):
                seen.final = frame["message"]
    return seen

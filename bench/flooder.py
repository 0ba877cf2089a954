"""One user's flood: requests over many connections and frames over some sockets, as fast as they are taken.

    python -m bench.flooder --url http://127.0.0.1:8000 --session ID --user NAME --seconds 10

Prints how each request was answered, and how often a socket was closed.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter

import aiohttp
import jwt

from bench.wire import PONG, TEXT, WebSocket

CONNECTIONS = 20
API = "/api/v1/chat"
# The settings of the product that is flooded: those that it has by itself where users are told apart.
KEY = "a key of the benchmark, and of nothing else"
SETTINGS = {"AUTH_MODE": "jwt", "JWT_SECRET": KEY}
# What each socket says, and how much of it at once: commands, pongs that nobody asked for, and the largest frames
# that are cheap to write and dear to read.
SAID = (
    (TEXT, b'{"type":"ping"}', 50),
    (PONG, b"", 500),
    (TEXT, b'{"type":"ping","x":[' + b"[]," * 85_000 + b"0]}", 2),
)


async def flood(url: str, session_id: str, *, user: str, seconds: float) -> Counter[str]:
    """Flood for so long; return what came of it."""
    end, counts = time.monotonic() + seconds, Counter[str]()
    headers, connector = who(user), aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(f"{url}{API}/", headers=headers, connector=connector) as http:
        asking = [_ask(http, session_id, end, counts, writes=n % 2 == 0) for n in range(CONNECTIONS)]
        socket_url = f"ws{url.removeprefix('http')}{API}/sessions/{session_id}/websocket?user_id={user}"
        await asyncio.gather(*asking, *(_say(socket_url, headers, end, counts, *said) for said in SAID))
    return counts


def who(user: str) -> dict[str, str]:
    """Return the headers that say who asks, whatever the mode."""
    token = jwt.encode({"sub": user, "exp": int(time.time()) + 3600}, KEY, algorithm="HS256")
    return {"X-User-ID": user, "Authorization": f"Bearer {token}"}


async def _ask(http: aiohttp.ClientSession, session_id: str, end: float, counts: Counter[str], *, writes: bool) -> None:
    while time.monotonic() < end:
        method, body = ("POST", {"content": "flood"}) if writes else ("GET", None)
        async with http.request(method, f"sessions/{session_id}/messages", json=body) as answer:
            await answer.read()
            counts[f"answered {answer.status}"] += 1


async def _say(
    url: str, headers: dict[str, str], end: float, counts: Counter[str], opcode: int, payload: bytes, at_once: int
) -> None:
    while time.monotonic() < end:
        try:
            socket = await WebSocket(url, lambda payload, at: None, headers=headers).open()
        except ConnectionError:
            counts["sockets refused"] += 1
            continue
        while not socket.closed.done() and time.monotonic() < end:
            for _ in range(at_once):
                socket.write(opcode, payload)
                counts["frames"] += 1
            await asyncio.sleep(0.01)
        counts["sockets closed"] += socket.closed.done()
        socket.close()


def main() -> None:
    """Flood as the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    counts = asyncio.run(flood(asked.url, asked.session, user=asked.user, seconds=asked.seconds))
    print(", ".join(f"{what}: {count:,}" for what, count in sorted(counts.items())))


if __name__ == "__main__":
    main()

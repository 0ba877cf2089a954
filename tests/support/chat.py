"""A client of the whole product: REST as a frontend calls it, and a viewer that believes nothing.

The viewer checks, on every frame, what the contract promises of a connection: durable events once and in
order, deltas without a gap, nothing after an end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

Frame = dict[str, Any]

API = "/api/v1/chat"
FINAL = {"completed", "failed", "cancelled"}
WAIT_SECONDS = 20.0


class Chat:
    """One user at one web process."""

    def __init__(self, url: str, user: str = "alice") -> None:
        self.url = url
        self.user = user
        # What was answered with a 2xx, to be looked for afterwards: session and message.
        self.accepted: list[tuple[str, str]] = []
        self.http = httpx.Client(base_url=url + API, headers={"X-User-ID": user}, timeout=70, trust_env=False)

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def as_user(self, user: str) -> Chat:
        return Chat(self.url, user)

    def request(self, method: str, path: str, *, status: int = 200, **more: Any) -> Any:
        """Send a request, check its status, return its JSON."""
        response = self.http.request(method, path, **more)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    def new_session(self, model: str = "stub:tokens=10", **more: Any) -> Frame:
        body = {"llm_provider": "LOCAL", "llm_model": model} | more
        session: Frame = self.request("POST", "/sessions", json=body, status=201)
        return session

    def send(self, session_id: str, content: str, **more: Any) -> Frame:
        """Store a message; with process=True its `job` is in the answer."""
        body = {"content": content} | more
        message: Frame = self.request("POST", f"/sessions/{session_id}/messages", json=body, status=201)
        self.accepted.append((session_id, message["id"]))
        return message

    def ask(self, session_id: str, prompt: str, **more: Any) -> Frame:
        """Ask for a reply and do not wait for it."""
        body = {"prompt": prompt, "stream": True} | more
        asked: Frame = self.request("POST", f"/sessions/{session_id}/process-llm", json=body, status=202)
        self.accepted += [(session_id, asked["message_id"]), (session_id, asked["assistant_message_id"])]
        return asked

    def messages(self, session_id: str, **query: Any) -> list[Frame]:
        found: list[Frame] = self.page(session_id, **query)["messages"]
        return found

    def page(self, session_id: str, **query: Any) -> Frame:
        page: Frame = self.request("GET", f"/sessions/{session_id}/messages", params={"page_size": 200} | query)
        return page

    def job(self, job_id: str) -> Frame:
        job: Frame = self.request("GET", f"/jobs/{job_id}")
        return job

    def cancel(self, job_id: str) -> httpx.Response:
        return self.http.post(f"/jobs/{job_id}/cancel")

    def wait_for_job(self, job_id: str, *, seconds: float = WAIT_SECONDS) -> Frame:
        """Return a job once it has ended."""
        deadline = time.monotonic() + seconds
        while (job := self.job(job_id))["status"] in ("queued", "running"):
            assert time.monotonic() < deadline, f"not ended within {seconds} s: {job}"
            time.sleep(0.05)
        return job

    def watch(self, session_id: str, **query: Any) -> Viewer:
        """Open a socket on a session."""
        query = {"user_id": self.user} | query
        address = f"{self.url.replace('http', 'ws', 1)}{API}/sessions/{session_id}/websocket?{urlencode(query)}"
        # No pings of its own: the thread that sends them draws random numbers, beside whichever test runs then.
        how: dict[str, Any] = {"max_size": None, "max_queue": None, "open_timeout": 10, "ping_interval": None}
        return Viewer(connect(address, proxy=None, legacy=True, **how))


class Viewer:
    """An open socket, and what a client that applies its events believes."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[Frame] = []
        self.offset = 0
        self.texts: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.messages: dict[str, Frame] = {}
        self.ended: set[str] = set()
        self.closed: ConnectionClosed | None = None

    def __enter__(self) -> Viewer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def say(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind} | fields))

    def next(self, *, seconds: float = WAIT_SECONDS) -> Frame:
        """Return the next frame, after checking it."""
        try:
            frame: Frame = json.loads(self.socket.recv(timeout=seconds))
        except ConnectionClosed as closed:
            self.closed = closed
            raise
        self.frames.append(frame)
        self._check(frame)
        return frame

    def until(self, wanted: Callable[[Frame], Any], *, seconds: float = WAIT_SECONDS) -> Frame:
        """Read until a frame is what is wanted, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            assert left > 0, f"not seen within {seconds} s; the last: {self.frames[-3:]}"
            try:
                frame = self.next(seconds=left)
            except TimeoutError:
                raise AssertionError(f"not seen within {seconds} s; the last: {self.frames[-3:]}") from None
            if wanted(frame):
                return frame

    def greeting(self) -> Frame:
        frame = self.next()
        assert frame["type"] == "connection_established", frame
        return frame

    def until_type(self, kind: str, **more: Any) -> Frame:
        return self.until(lambda frame: frame["type"] == kind, **more)

    def until_action(self, action: str, **more: Any) -> Frame:
        return self.until(lambda frame: frame.get("action") == action, **more)

    def until_job(self, status: str, **more: Any) -> Frame:
        return self.until(lambda frame: frame["type"] == "job_update" and frame["job"]["status"] == status, **more)

    def until_closed(self, *, seconds: float = WAIT_SECONDS) -> int:
        """Read to the end and return the close code."""
        try:
            self.until(lambda frame: False, seconds=seconds)
        except ConnectionClosed as closed:
            received = closed.rcvd
        else:
            raise AssertionError("still open")
        assert received is not None, "closed without a close frame"
        return received.code

    def pieces(self, message_id: str) -> list[str]:
        """The deltas of a reply, as they came."""
        return [f["text"] for f in self.frames if f["type"] == "message_delta" and f["message_id"] == message_id]

    def _check(self, frame: Frame) -> None:
        assert frame["type"], frame
        assert frame["session_id"], frame
        assert frame["timestamp"], frame
        if frame["type"] == "connection_established":
            self.offset = self.offset if frame["recovered"] else frame["offset"]
        elif "offset" in frame and frame["type"] != "pong":
            assert frame["offset"] == self.offset + 1, f"offset {frame['offset']} after {self.offset}"
            self.offset = frame["offset"]
        if frame["type"] == "message_delta":
            self._check_delta(frame)
        elif frame["type"] == "message_update" and not frame.get("replayed"):
            self._apply(frame["action"], frame["message"])

    def _check_delta(self, frame: Frame) -> None:
        message_id, attempt = frame["message_id"], frame["attempt"]
        assert message_id not in self.ended, f"a delta after the end: {frame}"
        assert attempt >= self.attempts.get(message_id, 0), f"a delta of an old attempt: {frame}"
        if attempt > self.attempts.get(message_id, 0):
            assert frame["start"] == 0, f"an attempt begins at {frame['start']}"
            self.attempts[message_id], self.texts[message_id] = attempt, ""
        known = len(self.texts.get(message_id, ""))
        assert frame["start"] == known, f"start {frame['start']} after {known} characters"
        assert frame["text"], "an empty delta"
        self.texts[message_id] = self.texts.get(message_id, "") + frame["text"]

    def _apply(self, action: str, message: Frame) -> None:
        message_id = message["id"]
        if action == "streaming":
            assert message_id not in self.ended, "text after the end"
            if message["attempt"] == self.attempts.get(message_id):
                assert message["content"].startswith(self.texts[message_id]), "a text that shrank or changed"
        self.messages[message_id] = message
        self.texts[message_id] = message["content"]
        self.attempts[message_id] = message["attempt"]
        if action in FINAL:
            self.ended.add(message_id)

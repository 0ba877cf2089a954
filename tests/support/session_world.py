"""A chat session without a database: what happens in it, what is published of it, and what a look into it shows."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from chat_backend.domain.cursor import Cursor, tag_of
from chat_backend.models.base import now
from chat_backend.protocol.envelope import Delta, Durable, Envelope
from chat_backend.protocol.events import encode, framed
from chat_backend.realtime.channels import session_channel
from chat_backend.web.websocket.feed import Truth
from chat_backend.web.websocket.frames import Encoded
from tests.support.chat import Viewer

Shape = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One line of the log: what kind of event, about what."""

    kind: str
    action: str | None
    subject: str
    at: datetime


class World:
    """The truth about one chat session. Every change is published once; what becomes of that is the test's affair."""

    def __init__(self) -> None:
        self.session_id = uuid4()
        self.messages: dict[str, Shape] = {}
        self.jobs: dict[str, Shape] = {}
        self.live: dict[str, str] = {}
        self.log: list[Entry] = []
        self.published: list[Envelope | Delta] = []

    # What happens

    def ask(self) -> None:
        """Someone sends a message and asks for its reply."""
        question, reply, job = str(uuid4()), str(uuid4()), str(uuid4())
        self.messages[question] = self._message(question, "user", "complete", content="Hello", user_id="ann")
        self._tell("message_update", "new_message", question)
        self.messages[reply] = self._message(reply, "assistant", "pending", job_id=job)
        self.jobs[job] = {"id": job, "assistant_message_id": reply, "status": "queued", "attempt": 0, "attempts": []}
        self.live[reply] = ""
        self._tell("message_update", "new_message", reply)
        self._tell("job_update", None, job)

    def begin(self) -> None:
        """A worker takes the next job, or takes the running one over."""
        for reply in self._unfinished():
            job = self.jobs[reply["job_id"]]
            # Of a lost worker it is not known what it has shown.
            had_text = job["status"] == "running"
            job["attempt"] += 1
            job["status"] = "running"
            job["attempts"].append({"provider": "LOCAL", "model": f"m{job['attempt']}"})
            reply |= {"attempt": job["attempt"], "status": "streaming", "content": "", "is_streaming": True}
            self.live[reply["id"]] = ""
            if had_text:
                self._tell("message_update", "restarted", reply["id"])
            self._tell("job_update", None, job["id"])
            return

    def write(self, text: str) -> None:
        """The model says some more."""
        for reply in self._unfinished():
            if reply["status"] == "streaming":
                start = len(self.live[reply["id"]])
                self.live[reply["id"]] += text
                channel = session_channel(self.session_id)
                self.published.append(Delta(channel, reply["id"], reply["attempt"], start, text))
                return

    def checkpoint(self) -> None:
        for reply in self._unfinished():
            reply["content"] = self.live[reply["id"]]

    def finish(self) -> None:
        for reply in self._unfinished():
            if reply["status"] == "streaming":
                reply |= {"status": "complete", "content": self.live[reply["id"]], "is_streaming": False}
                self.jobs[reply["job_id"]]["status"] = "succeeded"
                self._tell("message_update", "completed", reply["id"])
                self._tell("job_update", None, reply["job_id"])
                return

    def _unfinished(self) -> list[Shape]:
        return [message for message in self.messages.values() if message["status"] in ("pending", "streaming")]

    def _message(self, id: str, role: str, status: str, *, content: str = "", **more: Any) -> Shape:
        rest = {"attempt": 0, "job_id": None, "user_id": None, "is_streaming": status == "pending"} | more
        return {"id": id, "role": role, "status": status, "content": content} | rest

    def _tell(self, kind: str, action: str | None, subject: str) -> None:
        self.log.append(Entry(kind, action, subject, now()))
        self.published.append(self._event(len(self.log)))

    # What a look into it shows

    @property
    def offset(self) -> int:
        return len(self.log)

    def _event(self, offset: int) -> Durable:
        """The event as it is shown now."""
        entry = self.log[offset - 1]
        if entry.kind == "message_update":
            body = {"type": entry.kind, "action": entry.action, "message": self.messages[entry.subject]}
        else:
            body = {"type": entry.kind, "job": self.jobs[entry.subject]}
        cursor = Cursor.at(offset, entry.at)
        return Durable(offset, encode(framed(body, self.session_id, entry.at, cursor)), "ann", tag=cursor.tag)

    def events(self, since: int) -> list[Durable]:
        return [self._event(offset) for offset in range(since + 1, self.offset + 1)]

    def truth(self, since: int, *, live: bool) -> Truth:
        """Return what has happened since, and the replies in progress: as Redis has them, or as checkpoints."""
        replies = [dict(reply) for reply in self._unfinished()]
        if live:
            replies = [reply | {"content": self.live[reply["id"]]} for reply in replies]
        tag = tag_of(self.log[-1].at) if self.log else None
        return Truth(self.offset, self.events(since), replies, tag)


class PaperOutbox:
    """An outbox whose viewer reads when it is told to."""

    def __init__(self) -> None:
        self.reads = True
        self.blocked_since: float | None = None
        self.sent: deque[str] = deque()
        self._waiting: deque[bytes] = deque()
        self.closed_with: int | None = None

    @property
    def idle(self) -> bool:
        return not self._waiting

    @property
    def waiting_bytes(self) -> int:
        return sum(map(len, self._waiting))

    def push(self, encoded: Encoded) -> None:
        if self.closed_with is None:
            self._waiting.append(encoded.data)
            self.pump()

    def pump(self) -> None:
        while self.reads and self._waiting:
            self.sent.append(self._waiting.popleft().decode())

    @property
    def gone(self) -> bool:
        return False

    def keep_alive(self) -> bool:
        return True

    def finish(self, code: int, reason: str) -> None:
        self.closed_with = self.closed_with or code

    def cut(self, last: Encoded, code: int, reason: str) -> None:
        self._waiting.clear()
        self.push(last)
        self.finish(code, reason)

    def drop(self) -> None:
        self._waiting.clear()

    # What Viewer wants of a socket

    def recv(self, timeout: float) -> str:
        return self.sent.popleft()


def read_all(viewer: Viewer, outbox: PaperOutbox) -> None:
    """Let a viewer check everything that it was sent."""
    while outbox.sent:
        viewer.next()


def frames(outbox: PaperOutbox) -> list[Shape]:
    """Return what was sent and is not read yet."""
    return [json.loads(text) for text in outbox.sent]

"""One viewer of a chat session: what it has been shown, and what it is still owed."""

from __future__ import annotations

import logging
import time
from typing import Any
from uuid import UUID, uuid4

from chat_backend.domain.cursor import Cursor
from chat_backend.domain.enums import ParticipantRole
from chat_backend.domain.errors import ChatError, ErrorCode
from chat_backend.domain.user import User
from chat_backend.models.base import now
from chat_backend.protocol.events import encode, error, framed, message_delta
from chat_backend.web.errors import error_object
from chat_backend.web.websocket.frames import Encoded
from chat_backend.web.websocket.outbox import Outbox
from chat_backend.web.websocket.reply import Reply

log = logging.getLogger(__name__)

POLICY, TOO_LARGE, RESTARTING, TRY_AGAIN = 1008, 1009, 1012, 1013
UNAUTHENTICATED, NO_PARTICIPANT, NO_SESSION = 4401, 4403, 4404
CLOSING_SECONDS = 2.0


class Connection:
    """A socket or an SSE stream. Its feed's lock guards it; only the outbox has one of its own.

    Durable events are shown once and in order. Text on its way is not queued for a viewer that is slow:
    what it is owed is the rest of the reply from where it is, so it gets fewer, larger pieces.
    """

    def __init__(
        self,
        session_id: UUID,
        user: User,
        outbox: Outbox,
        *,
        role: str = ParticipantRole.VIEWER,
        deltas: bool = False,
        outbox_bytes: int = 4_194_304,
        admitted_at: int = 0,
    ) -> None:
        self.id = uuid4().hex
        self.session_id = session_id
        self.user = user
        self.role = role
        # Of which event on a change of its role is still to be looked at.
        self.admitted_at = admitted_at
        self.outbox = outbox
        self.deltas = deltas
        self.outbox_bytes = outbox_bytes
        # What it has been shown of the log.
        self.cursor = Cursor(0)
        self.greeted = False
        self.owed: dict[str, Reply] = {}
        self.closing_since: float | None = None
        self.last_ping_at = time.monotonic()
        self._shown: dict[str, tuple[int, int]] = {}

    @property
    def offset(self) -> int:
        return self.cursor.offset

    @property
    def closing(self) -> bool:
        return self.closing_since is not None

    def say(self, body: dict[str, Any]) -> None:
        """Send a frame to this viewer alone."""
        self.push(Encoded(encode(framed(body, self.session_id, now()))))

    def push(self, encoded: Encoded) -> None:
        """Send a frame; a viewer for whom too much waits already is closed."""
        if self.outbox.waiting_bytes > self.outbox_bytes:
            self.cut(TRY_AGAIN, "Too much was waiting to be read.")
        else:
            self.outbox.push(encoded)

    def show_durable(self, encoded: Encoded) -> None:
        """Send a durable event, unless it was sent before."""
        assert encoded.cursor is not None
        if encoded.cursor.offset > self.offset:
            self.cursor = encoded.cursor
            self.push(encoded)

    @property
    def unsettled(self) -> bool:
        """Whether something is still to be sent."""
        return bool(self.owed) or not self.outbox.idle

    def shown(self, message_id: str, attempt: int, length: int) -> None:
        """Note how far this viewer's text of a reply goes."""
        self._shown[message_id] = (attempt, length)

    def forget(self, message_id: str) -> None:
        """A reply has ended: its final event holds the whole text, and nothing more may follow."""
        self._shown.pop(message_id, None)
        self.owed.pop(message_id, None)

    def show_piece(self, reply: Reply, start: int, encoded: Encoded) -> None:
        """Send a delta that everyone gets, or remember that this viewer is owed it."""
        if self.outbox.idle and self._position(reply) == start:
            self.push(encoded)
            self._shown[reply.message_id] = (reply.attempt, len(reply.text))
        else:
            self.owed[reply.message_id] = reply

    def _position(self, reply: Reply) -> int:
        attempt, length = self._shown.get(reply.message_id, (reply.attempt, 0))
        return length if attempt == reply.attempt else 0

    def show_snapshot(self, reply: Reply, encoded: Encoded) -> None:
        """Send the text so far, or remember that this viewer is owed it."""
        if self.outbox.idle:
            self.push(encoded)
        else:
            self.owed[reply.message_id] = reply

    def baseline(self, reply: Reply) -> None:
        """Send the whole text so far; from here on this viewer follows."""
        self.say(reply.snapshot())
        self.shown(reply.message_id, reply.attempt, len(reply.text))

    def expired(self) -> bool:
        """Whether the token that this connection was opened with has ended."""
        return self.user.expires_at is not None and self.user.expires_at <= now()

    def settle(self) -> None:
        """Send what is owed, if the viewer has taken all before it."""
        self.outbox.pump()
        while self.owed and self.outbox.idle and not self.closing:
            _, reply = self.owed.popitem()
            if self.deltas:
                self._catch_up(reply)
            else:
                self.say(reply.snapshot())

    def _catch_up(self, reply: Reply) -> None:
        start = self._position(reply)
        text = reply.text.whole()[start:]
        if text:
            self.say(message_delta(reply.message_id, reply.attempt, start=start, text=text))
        self._shown[reply.message_id] = (reply.attempt, max(start, len(reply.text)))

    def close(self, code: int, reason: ErrorCode, message: str) -> None:
        """Say why, then close; what the viewer does not take within two seconds is dropped."""
        if not self.closing:
            self.closing_since = time.monotonic()
            self.outbox.push(refusal(ChatError(message, code=reason), self.session_id))
            self.outbox.finish(code, message)

    def cut(self, code: int, message: str) -> None:
        """Close a viewer that does not read: of what waits, only why it ends is kept for it."""
        if not self.closing:
            self.closing_since = time.monotonic()
            last = refusal(ChatError(message, code=ErrorCode.TOO_SLOW), self.session_id)
            self.outbox.cut(last, code, message)
            log.info("closed a viewer that is too slow", extra={"action": "cut", "connection_id": self.id})


def refusal(fault: ChatError, session_id: UUID | str) -> Encoded:
    """Return the error frame that is the last of a connection; the id is what the path holds, whatever that is."""
    return Encoded(encode(framed(error(error_object(fault, uuid4().hex)), session_id, now())))

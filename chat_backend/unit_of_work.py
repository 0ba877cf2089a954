"""One transaction, and what the world is told once it has committed.

Nothing leaves before the commit, and after it nothing may fail the request: what can't be delivered
is in the database, where hubs and sweeps find it.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from uuid import UUID

from sqlalchemy import Table, bindparam, func, insert, select
from sqlalchemy.orm import Session

from chat_backend.domain.cursor import Cursor
from chat_backend.domain.enums import AuditAction
from chat_backend.domain.errors import ErrorCode, TooLarge
from chat_backend.domain.trace import current_trace
from chat_backend.domain.user import User
from chat_backend.models import AuditEntry, ChatSession, SessionEvent, StorageChange
from chat_backend.models.base import new_id, now
from chat_backend.protocol import envelope
from chat_backend.protocol.events import Happening, encode, framed

log = logging.getLogger(__name__)

# Made once: to put a statement together costs as much as to execute it.
_NEW_EVENTS = insert(cast(Table, SessionEvent.__table__))
_NEW_ENTRIES = insert(cast(Table, AuditEntry.__table__))
_NEW_STORAGE_CHANGES = insert(cast(Table, StorageChange.__table__))
STORED_BYTES_OF = select(func.sum(StorageChange.stored_bytes)).where(StorageChange.user_id == bindparam("of_user"))


class Outbound(Protocol):
    """The two ways out: Redis and the queue. Neither ever raises; both take bounded time."""

    def publish(self, envelopes: list[tuple[UUID, envelope.Envelope]]) -> None: ...

    def wake(self, job_ids: list[UUID]) -> None: ...

    def cancel(self, job_ids: list[UUID]) -> None: ...

    def close(self) -> None: ...


@dataclass
class UnitOfWork:
    """The open transaction and what is to be told after it."""

    session: Session
    # Bytes that one user may store; 0: no quota.
    storage_limit: int = 0
    # Written as they are, in one statement each: nobody reads them in the transaction that writes them.
    _events: list[dict[str, Any]] = field(default_factory=list)
    _entries: list[dict[str, Any]] = field(default_factory=list)
    _envelopes: list[tuple[UUID, envelope.Envelope]] = field(default_factory=list)
    _wakeups: list[UUID] = field(default_factory=list)
    _cancels: list[UUID] = field(default_factory=list)
    _done: list[dict[str, str]] = field(default_factory=list)
    _stored_bytes: Counter[str] = field(default_factory=Counter)
    _storage_checked: set[str] = field(default_factory=set)

    def tell(self, chat: ChatSession, happening: Happening) -> None:
        """Write a durable event; everyone in the chat session is told after the commit.

        The caller holds the chat session's row lock, so offsets are contiguous.
        """
        chat.last_offset += 1
        subject, at = happening.subject, now()
        event = {
            "session_id": chat.id,
            "offset": chat.last_offset,
            "type": happening.type,
            "action": happening.action,
            "message_id": subject.id if happening.action else None,
            "job_id": subject.id if happening.type == "job_update" else None,
            "user_id": happening.user_id,
            "request_id": happening.request_id,
            "created_at": at,
        }
        self._events.append(event)
        cursor = Cursor.at(chat.last_offset, at)
        frame = encode(framed(happening.body(), chat.id, at, cursor))
        durable = envelope.Durable(chat.last_offset, frame, happening.user_id, happening.request_id, cursor.tag)
        self._envelopes.append((chat.id, durable))

    def record(
        self,
        chat: ChatSession,
        action: AuditAction,
        user: User,
        *,
        participant_id: str | None = None,
        message_id: UUID | None = None,
        job_id: UUID | None = None,
        **details: Any,
    ) -> None:
        """Write down who did what, for the chat session's owner; after the commit, the log is told too.

        Details name what was changed, and never hold content.
        """
        entry = {
            "id": new_id(),
            "session_id": chat.id,
            "action": action,
            "user_id": user.id,
            "participant_id": participant_id,
            "message_id": message_id,
            "job_id": job_id,
            "details": details,
            "offset": chat.last_offset,
            "trace_id": current_trace(),
            "created_at": now(),
        }
        self._entries.append(entry)
        facts = {"action": action.value, "session_id": str(chat.id)}
        self._done.append(facts | ({"job_id": str(job_id)} if job_id else {}))

    def close(self, session_id: UUID, user: User) -> None:
        """After the commit, close the connections of a chat session that a user has deleted.

        What was written down of it is gone as well: the log is all that is left to tell who did it.
        """
        self._done.append({"action": "session_deleted", "session_id": str(session_id), "user_id": user.id})
        self._envelopes.append((session_id, envelope.Closed()))

    def wake(self, job_id: UUID) -> None:
        """After the commit, ring for a worker."""
        self._wakeups.append(job_id)

    def cancel(self, job_id: UUID) -> None:
        """After the commit, tell the worker that runs a job to stop."""
        self._cancels.append(job_id)

    def charge_storage(self, user_id: str, stored_bytes: int, *, check: bool = True) -> None:
        """Add to what a user stores (negative: release); with check, the commit fails if it exceeds the quota.

        Transactions at the same moment do not see each other: together they may exceed it.
        """
        self._stored_bytes[user_id] += stored_bytes
        if check and self.storage_limit:
            self._storage_checked.add(user_id)

    def write_down(self) -> None:
        """Write all that was gathered for the database; called once, right before the commit.

        Raises TooLarge if a user would store more than the quota.
        """
        self.session.flush()
        for statement, rows in ((_NEW_EVENTS, self._events), (_NEW_ENTRIES, self._entries)):
            if rows:
                self.session.connection().execute(statement, rows)

        self._charge_storage()

    def _charge_storage(self) -> None:
        changes = [
            {"user_id": user_id, "stored_bytes": added} for user_id, added in self._stored_bytes.items() if added
        ]
        if changes:
            self.session.connection().execute(_NEW_STORAGE_CHANGES, changes)
        for user_id in self._storage_checked:
            used = self.session.scalar(STORED_BYTES_OF, {"of_user": user_id}) or 0
            if used > self.storage_limit:
                raise TooLarge(
                    "You have used up your storage. Delete chats that you no longer need.",
                    code=ErrorCode.STORAGE_QUOTA_EXCEEDED,
                    details={"limit": self.storage_limit, "used": int(used) - self._stored_bytes[user_id]},
                )

    def tell_the_world(self, out: Outbound) -> None:
        """Deliver what was gathered; called once, after the commit."""
        for facts in self._done:
            log.info("something was done", extra=facts)
        if self._cancels:
            out.cancel(self._cancels)
        if self._envelopes:
            out.publish(self._envelopes)
        if self._wakeups:
            out.wake(self._wakeups)

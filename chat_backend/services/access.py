"""The one place that decides who may enter a chat session, and to do what."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from chat_backend.domain.enums import ParticipantRole
from chat_backend.domain.errors import Forbidden, NotFound
from chat_backend.domain.user import User
from chat_backend.models import ChatSession, LlmJob, Message, Participant
from chat_backend.row_locks import lock_first

Below = TypeVar("Below", Message, LlmJob)


class Access(IntEnum):
    """What someone enters for; each includes those before it."""

    READ = 1
    WRITE = 2
    OWN = 3


READ, WRITE, OWN = Access.READ, Access.WRITE, Access.OWN

# What a role that is not known may do was decided by a newer release: here it may read.
_GRANTED: dict[str, Access] = {ParticipantRole.VIEWER: READ, ParticipantRole.MEMBER: WRITE, ParticipantRole.OWNER: OWN}


# Built once: to build a statement costs as much as to execute it.
_ENTRANCE = (
    select(ChatSession, Participant.role)
    .join(Participant, Participant.session_id == ChatSession.id)
    .where(ChatSession.id == bindparam("session_id"), Participant.user_id == bindparam("user_id"))
)
_ROLE = select(Participant.role).where(
    Participant.session_id == bindparam("session_id"), Participant.user_id == bindparam("user_id")
)
_HERE = ChatSession.deleted_at.is_(None)
# Only participants may lock a chat session. Their role is read in a statement of its own, after the lock: a statement
# that waits for a lock sees the other tables as they were before the wait.
_SESSION = (
    select(ChatSession)
    .where(ChatSession.id == bindparam("session_id"), _HERE, _ROLE.exists())
    .execution_options(populate_existing=True)
)
_SESSION_NOW, _SESSION_WAIT = (_SESSION.with_for_update(of=ChatSession, skip_locked=skip) for skip in (True, False))
_SESSION_ID_OF_JOB = select(LlmJob.session_id).where(LlmJob.id == bindparam("job_id"))
_SESSION_OF_JOB = (
    select(ChatSession)
    .where(ChatSession.id == _SESSION_ID_OF_JOB.scalar_subquery(), _HERE)
    .execution_options(populate_existing=True)
)
_OF_JOB_NOW, _OF_JOB_WAIT = (
    _SESSION_OF_JOB.with_for_update(of=ChatSession, skip_locked=skip) for skip in (True, False)
)


def enter(session: Session, session_id: UUID, user: User, *, to: Access, lock: bool = False) -> ChatSession:
    """Return a chat session to someone who may do this in it; with lock, for the rest of the transaction.

    Raises NotFound for strangers, exactly as for what does not exist, and Forbidden for participants
    whose role is too small.
    """
    chat, role = let_in(session, session_id, user, lock=lock)
    if to > granted(role):
        raise Forbidden(f"As {role} of this chat session you may not do this.")
    return chat


def let_in(session: Session, session_id: UUID, user: User, *, lock: bool = False) -> tuple[ChatSession, str]:
    """Return a chat session and the user's role in it, of one moment. Raises NotFound for strangers.

    With lock, for the rest of the transaction; then it must be the first lock, before anything is written.
    """
    who = {"session_id": session_id, "user_id": user.id}
    if not lock:
        row = session.execute(_ENTRANCE, who).one_or_none()
        chat, role = row if row else (None, None)
    else:
        chat = lock_first(
            session,
            session_id,
            find=lambda: session_id if session.scalar(_ROLE, who) else None,
            now=lambda: session.scalar(_SESSION_NOW, who),
            blocking=lambda: session.scalar(_SESSION_WAIT, who),
        )
        role = session.scalar(_ROLE, who) if chat else None
    if chat is None or role is None:
        raise no_such("chat session")
    return chat, role


def granted(role: str) -> Access:
    """Return what a participant's role allows."""
    return _GRANTED.get(role, READ)


def session_of(session: Session, kind: type[Below], id: UUID, user: User) -> UUID:
    """Return the chat session that a message or job lies in, looked up through its participants.

    Raises NotFound for strangers.
    """
    query: Any = (
        select(kind.session_id)
        .join(Participant, Participant.session_id == kind.session_id)
        .where(kind.id == id, Participant.user_id == user.id)
    )
    found: UUID | None = session.scalar(query)
    if found is None:
        raise no_such("message" if kind is Message else "job")
    return found


def lock_session_of(session: Session, job_id: UUID) -> ChatSession | None:
    """Lock a job's chat session for the rest of the transaction, on nobody's behalf; None if it is deleted."""
    which = {"job_id": job_id}
    return lock_first(
        session,
        None,
        find=lambda: session.scalar(_SESSION_ID_OF_JOB, which),
        now=lambda: session.scalar(_OF_JOB_NOW, which),
        blocking=lambda: session.scalar(_OF_JOB_WAIT, which),
    )


def no_such(what: str) -> NotFound:
    """Return the same answer for what does not exist and for what a stranger may not know of."""
    return NotFound(f"There is no such {what}.")

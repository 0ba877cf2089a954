"""Participants: who is admitted, and as what."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chat_backend.domain import limits
from chat_backend.domain.enums import ParticipantRole
from chat_backend.domain.errors import Conflict, ErrorCode, InvalidInput
from chat_backend.domain.user import User
from chat_backend.models import ChatSession, Participant
from chat_backend.models.base import now
from chat_backend.protocol.events import Happening
from chat_backend.services import idempotency
from chat_backend.services.access import OWN, READ, enter, no_such
from chat_backend.services.chat_sessions import touch
from chat_backend.services.idempotency import Intent
from chat_backend.unit_of_work import UnitOfWork


def everyone(session: Session, session_id: UUID, user: User) -> list[Participant]:
    """Return every participant, in the order of admission."""
    enter(session, session_id, user, to=READ)
    query = select(Participant).where(Participant.session_id == session_id)
    return list(session.scalars(query.order_by(Participant.created_at, Participant.user_id)))


def admit(
    uow: UnitOfWork, session_id: UUID, user: User, *, user_id: str, role: str, intent: Intent | None = None
) -> tuple[Participant, bool]:
    """Admit a user, or change a role; return the participant and whether it is new."""
    chat = enter(uow.session, session_id, user, to=OWN, lock=True)
    replayed = idempotency.begin(uow, user, intent, scope=chat.id) is not None
    known = uow.session.get(Participant, (session_id, user_id))
    if known and (replayed or known.role == role):
        return known, replayed
    if known:
        _refuse_owner(known)
    if role == ParticipantRole.OWNER:
        raise InvalidInput("A chat session has one owner: its creator.", field="role")
    participant = known or _add(uow, chat, user_id)
    participant.role = ParticipantRole(role)
    _tell(uow, chat, user)
    return participant, known is None


def dismiss(uow: UnitOfWork, session_id: UUID, user: User, user_id: str) -> None:
    """Remove a participant; removing oneself is leaving. Their sockets are cut when the event arrives."""
    chat = enter(uow.session, session_id, user, to=READ if user_id == user.id else OWN, lock=True)
    participant = uow.session.get(Participant, (session_id, user_id))
    if participant is None:
        raise no_such("participant")
    _refuse_owner(participant)
    uow.session.delete(participant)
    _tell(uow, chat, user)


def roles(session: Session, session_id: UUID) -> dict[str, ParticipantRole]:
    """Return everyone's role, for who decides whose sockets stay open."""
    query = select(Participant.user_id, Participant.role).where(Participant.session_id == session_id)
    return dict(session.execute(query).tuples())


def _add(uow: UnitOfWork, chat: ChatSession, user_id: str) -> Participant:
    count = uow.session.scalar(select(func.count()).where(Participant.session_id == chat.id)) or 0
    if count >= limits.PARTICIPANTS:
        raise InvalidInput(f"A chat session has at most {limits.PARTICIPANTS} participants.", field="user_id")
    participant = Participant(session_id=chat.id, user_id=user_id, created_at=now())
    uow.session.add(participant)
    return participant


def _tell(uow: UnitOfWork, chat: ChatSession, user: User) -> None:
    touch(chat)
    uow.tell(chat, Happening.session(chat, user_id=user.id))


def _refuse_owner(participant: Participant) -> None:
    if participant.role == ParticipantRole.OWNER:
        raise Conflict("The owner can't be removed or demoted.", code=ErrorCode.OWNER_IS_FIXED, field="user_id")

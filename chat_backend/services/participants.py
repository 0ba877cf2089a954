"""Participants: who is admitted, and as what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from chat_backend.domain.enums import AuditAction, ParticipantRole
from chat_backend.domain.errors import Conflict, ErrorCode, InvalidInput
from chat_backend.domain.strict_json import storable
from chat_backend.domain.user import User
from chat_backend.models import ChatSession, IdempotencyKey, Participant
from chat_backend.models.base import now
from chat_backend.protocol.events import Happening
from chat_backend.services import idempotency
from chat_backend.services.access import OWN, READ, enter, no_such
from chat_backend.services.chat_sessions import touch
from chat_backend.services.idempotency import Intent
from chat_backend.unit_of_work import UnitOfWork


@dataclass(frozen=True)
class Admitted:
    """A participant, whether it was admitted by this wish, and whether the wish was known before."""

    participant: Participant
    new: bool
    replayed: bool = False


def everyone(session: Session, session_id: UUID, user: User) -> list[Participant]:
    """Return every participant, in the order of admission."""
    enter(session, session_id, user, to=READ)
    query = select(Participant).where(Participant.session_id == session_id)
    return list(session.scalars(query.order_by(Participant.created_at, Participant.user_id)))


def admit(
    uow: UnitOfWork,
    session_id: UUID,
    user: User,
    *,
    user_id: str,
    role: str,
    most: int,
    most_memberships: int = 0,
    intent: Intent | None = None,
) -> Admitted:
    """Admit a user, or change a participant's role.

    Raises InvalidInput if the session has `most` participants already, or the user takes part in `most_memberships`
    sessions of others (0: no limit). Of those admitted at the same moment a few more may pass.
    """
    chat = enter(uow.session, session_id, user, to=OWN, lock=True)
    made = idempotency.begin(uow, user, intent, scope=chat.id)
    known = uow.session.get(Participant, (session_id, user_id))
    if made:
        return _made_before(made, known)
    if known is None:
        # Only where the participant is new is the session noted: so a repeat knows what it was.
        idempotency.made(uow, user, intent, scope=chat.id, session_id=chat.id)
    if known and known.role == role:
        return Admitted(known, new=False)
    if known:
        _refuse_owner(known)
    if role == ParticipantRole.OWNER:
        raise InvalidInput("A chat session has one owner: its creator.", field="role")
    if not known and most_memberships and _is_member(uow.session, user_id, at_least=most_memberships):
        message = "This user takes part in as many chat sessions of others as one user may."
        raise InvalidInput(message, field="user_id")
    participant = known or _add(uow, chat, user_id, most=most)
    before, participant.role = participant.role, ParticipantRole(role)
    _tell(uow, chat, user)
    if known:
        uow.record(chat, AuditAction.PARTICIPANT_CHANGED, user, participant_id=user_id, role=role, role_before=before)
    else:
        uow.record(chat, AuditAction.PARTICIPANT_ADDED, user, participant_id=user_id, role=role)
    return Admitted(participant, new=known is None)


def _made_before(made: IdempotencyKey, participant: Participant | None) -> Admitted:
    if participant is None:
        raise no_such("participant")
    return Admitted(participant, new=made.session_id is not None, replayed=True)


def dismiss(uow: UnitOfWork, session_id: UUID, user: User, user_id: str) -> None:
    """Remove a participant; removing oneself is leaving. Their tickets end at once, their sockets with the event."""
    chat = enter(uow.session, session_id, user, to=READ if user_id == user.id else OWN, lock=True)
    participant = uow.session.get(Participant, (session_id, user_id)) if storable(user_id) else None
    if participant is None:
        raise no_such("participant")
    _refuse_owner(participant)
    uow.session.delete(participant)
    _tell(uow, chat, user)
    role_before = participant.role
    uow.record(chat, AuditAction.PARTICIPANT_REMOVED, user, participant_id=user_id, role_before=role_before)


def roles(session: Session, members: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], str]:
    """Return the roles of users in sessions, in one query; who is no participant is left out."""
    key = (Participant.session_id, Participant.user_id)
    query = select(*key, Participant.role).where(tuple_(*key).in_(members))
    return {(row.session_id, row.user_id): row.role for row in session.execute(query)}


def _add(uow: UnitOfWork, chat: ChatSession, user_id: str, *, most: int) -> Participant:
    count = uow.session.scalar(select(func.count()).where(Participant.session_id == chat.id)) or 0
    if count >= most:
        raise InvalidInput(f"A chat session has at most {most} participants.", field="user_id")
    participant = Participant(session_id=chat.id, user_id=user_id, created_at=now())
    uow.session.add(participant)
    return participant


def _is_member(session: Session, user_id: str, *, at_least: int) -> bool:
    others = select(Participant.session_id).where(
        Participant.user_id == user_id, Participant.role != ParticipantRole.OWNER
    )
    return session.scalar(others.offset(at_least - 1).limit(1)) is not None


def _tell(uow: UnitOfWork, chat: ChatSession, user: User) -> None:
    touch(chat)
    uow.tell(chat, Happening.session(chat, user_id=user.id))


def _refuse_owner(participant: Participant) -> None:
    if participant.role == ParticipantRole.OWNER:
        raise Conflict("The owner can't be removed or demoted.", code=ErrorCode.OWNER_IS_FIXED, field="user_id")

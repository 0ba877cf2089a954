"""Idempotency: a client's name for an effect, kept in the transaction of the effect."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import BigInteger, Table, bindparam, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from chat_backend.domain import limits
from chat_backend.domain.errors import ErrorCode, InvalidInput, MalformedRequest
from chat_backend.domain.user import User
from chat_backend.models import IdempotencyKey
from chat_backend.models.base import database_now
from chat_backend.row_locks import lock_first
from chat_backend.unit_of_work import UnitOfWork

NOWHERE = UUID(int=0)
# Made once: to put a statement together costs as much as to execute it.
_KEYS = cast(Table, IdempotencyKey.__table__)
_NEW_KEY: dict[str, Any] = {name: bindparam(name) for name in ("user_id", "scope", "key", "fingerprint")}
_NEW_KEY["created_at"] = database_now()
_NOTED = {
    name: insert(_KEYS).values(_NEW_KEY).on_conflict_do_nothing().returning(_KEYS.c.key)
    for name, insert in (("postgresql", postgresql.insert), ("sqlite", sqlite.insert))
}
_MADE = (
    _KEYS.update()
    .where(_KEYS.c.user_id == bindparam("of_user"), _KEYS.c.scope == bindparam("in_scope"))
    .where(_KEYS.c.key == bindparam("named"))
    .values({name: bindparam(name) for name in ("session_id", "message_id", "job_id")})
)
_LOCK_NOW = select(func.pg_try_advisory_xact_lock(bindparam("number", type_=BigInteger)))
_LOCK_WAIT = select(func.pg_advisory_xact_lock(bindparam("number", type_=BigInteger)))
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Intent:
    """One intended effect: the client's key for it, and the fingerprint of what is asked."""

    key: str
    fingerprint: str
    kept: timedelta

    @classmethod
    def of(cls, key: str, operation: str, payload: Mapping[str, Any], *, kept_seconds: float) -> Intent:
        """Return an intent. Raises MalformedRequest for a key that is none."""
        if not _VISIBLE.fullmatch(key) or len(key) > limits.IDEMPOTENCY_KEY_CHARACTERS:
            raise MalformedRequest(
                "An idempotency key is 1 to 255 visible ASCII characters.",
                code=ErrorCode.INVALID_IDEMPOTENCY_KEY,
                field="Idempotency-Key",
            )
        text = json.dumps([operation, payload], sort_keys=True, default=str)
        return cls(key, hashlib.sha256(text.encode()).hexdigest(), timedelta(seconds=kept_seconds))


def begin(uow: UnitOfWork, user: User, intent: Intent | None, *, scope: UUID = NOWHERE) -> IdempotencyKey | None:
    """Return what was made under this key, or note the key and return None.

    Concurrent transactions with the same key serialize: by the lock of the chat session that is the scope, or here.
    Raises InvalidInput if the key was used for another request.
    """
    if intent is None:
        return None
    row = (user.id, scope, intent.key)
    if scope == NOWHERE and uow.session.get_bind().dialect.name == "postgresql":
        _lock(uow, row)
    if _note(uow, row, intent) or (_forget_expired(uow, row, intent) and _note(uow, row, intent)):
        return None
    made = uow.session.scalars(select(IdempotencyKey).where(*_is(row))).one_or_none()
    if made is None:  # it had expired, and was forgotten meanwhile
        return begin(uow, user, intent, scope=scope)
    if made.fingerprint != intent.fingerprint:
        raise InvalidInput(
            "This idempotency key was used for another request.",
            code=ErrorCode.IDEMPOTENCY_KEY_REUSED,
            field="Idempotency-Key",
        )
    return made


def made(
    uow: UnitOfWork,
    user: User,
    intent: Intent | None,
    *,
    scope: UUID = NOWHERE,
    session_id: UUID | None = None,
    message_id: UUID | None = None,
    job_id: UUID | None = None,
) -> None:
    """Note under the key what was made."""
    if intent is not None:
        row = {"of_user": user.id, "in_scope": scope, "named": intent.key}
        made = {"session_id": session_id, "message_id": message_id, "job_id": job_id}
        uow.session.connection().execute(_MADE, row | made)


def _lock(uow: UnitOfWork, row: tuple[str, UUID, str]) -> None:
    """Lock a key that lies in no chat session, so that nobody has to wait at the insert."""
    digest = hashlib.sha256(json.dumps([row[0], row[2]]).encode()).digest()
    which = {"number": int.from_bytes(digest[:8], signed=True)}
    lock_first(
        uow.session,
        digest,
        find=lambda: digest,
        now=lambda: uow.session.scalar(_LOCK_NOW, which) or None,
        blocking=lambda: uow.session.execute(_LOCK_WAIT, which).first(),
    )


def _is(row: tuple[str, UUID, str]) -> tuple[Any, ...]:
    user_id, scope, key = row
    return (IdempotencyKey.user_id == user_id, IdempotencyKey.scope == scope, IdempotencyKey.key == key)


def _forget_expired(uow: UnitOfWork, row: tuple[str, UUID, str], intent: Intent) -> bool:
    expired = IdempotencyKey.created_at < database_now(-intent.kept.total_seconds())
    gone = uow.session.execute(delete(IdempotencyKey).where(*_is(row), expired).returning(IdempotencyKey.key))
    return gone.first() is not None


def _note(uow: UnitOfWork, row: tuple[str, UUID, str], intent: Intent) -> bool:
    user_id, scope, key = row
    values = {"user_id": user_id, "scope": scope, "key": key, "fingerprint": intent.fingerprint}
    connection = uow.session.connection()
    return connection.execute(_NOTED[connection.dialect.name], values).first() is not None

"""How many replies may be unfinished at once: of one user, and waiting in the whole deployment."""

from __future__ import annotations

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from chat_backend.domain.errors import ErrorCode, TooMany, Unavailable
from chat_backend.domain.quota import Backlog
from chat_backend.models import LlmJob
from chat_backend.models.llm_job import QUEUED, UNFINISHED

RETRY_AFTER_SECONDS = 5
# Made once: to put a statement together costs as much as to execute it.
_OF_USER = (
    select(LlmJob.id)
    .where(LlmJob.user_id == bindparam("user_id"), UNFINISHED)
    .order_by(LlmJob.user_id)
    .offset(bindparam("skipped"))
    .limit(1)
)
_OF_ALL = select(LlmJob.not_before).where(QUEUED).order_by(LlmJob.not_before).offset(bindparam("skipped")).limit(1)


def check(session: Session, user_id: str, backlog: Backlog) -> None:
    """See whether one more is too many; asked for at the same moment, a few more may be.

    Raises TooMany for the user's own, Unavailable for everyone's.
    """
    of_user, of_all = backlog.jobs_of_user, backlog.queued_jobs
    if of_user and session.scalar(_OF_USER, {"user_id": user_id, "skipped": of_user - 1}) is not None:
        raise TooMany(
            f"You have {of_user} unfinished replies, which is the limit: wait for some, or cancel them.",
            code=ErrorCode.TOO_MANY_JOBS,
            details={"retry_after_seconds": RETRY_AFTER_SECONDS},
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
    if of_all and session.scalar(_OF_ALL, {"skipped": of_all - 1}) is not None:
        raise Unavailable(
            "Too many replies are waiting to be written.",
            code=ErrorCode.TOO_MANY_JOBS,
            details={"retry_after_seconds": RETRY_AFTER_SECONDS},
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )

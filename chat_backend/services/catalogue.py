"""How fast the providers have been of late."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from sqlalchemy import select
from sqlalchemy.orm import Session

from chat_backend.models import LlmAttempt

LOOKED_AT = 500
TAKEN = 20


@dataclass(frozen=True)
class Latency:
    """The median time to the first token of a provider's newest answers, and when the newest of them began."""

    time_to_first_token_ms: int
    last_answer_at: datetime


def latencies(session: Session) -> dict[str, Latency]:
    """Return the latency of each provider that has answered of late: up to 20 of the deployment's last 500 attempts."""
    # Ids are made in time order, so the newest are at the end of the primary key.
    query = select(LlmAttempt.provider, LlmAttempt.time_to_first_token_ms, LlmAttempt.started_at)
    newest = session.execute(query.order_by(LlmAttempt.job_id.desc(), LlmAttempt.number.desc()).limit(LOOKED_AT))
    found: dict[str, list[tuple[int, datetime]]] = defaultdict(list)
    for provider, milliseconds, started_at in newest:
        if milliseconds is not None and len(found[provider]) < TAKEN:
            found[provider].append((milliseconds, started_at))
    return {name: Latency(round(median(ms for ms, _ in taken)), taken[0][1]) for name, taken in found.items() if taken}

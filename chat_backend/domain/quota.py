"""Quotas: how much of the models a user may have in a day, which begins at midnight UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chat_backend.domain.prompt import ContextLimits


@dataclass(frozen=True)
class Backlog:
    """How many replies may be unfinished: of one user, and waiting in the whole deployment; 0: any number."""

    jobs_of_user: int = 0
    queued_jobs: int = 0


@dataclass(frozen=True)
class Quota:
    """What each user may have in a day; 0: as much as they like."""

    requests: int = 0
    tokens: int = 0
    # What a reply that names no max_tokens may have, and what is reserved for it.
    reply_tokens: int = 4096
    context: ContextLimits = field(default_factory=ContextLimits)
    # Whether what no longer fits is summed up, which is a call more.
    summed_up: bool = False
    # Of the moment, not of the day.
    backlog: Backlog = field(default_factory=Backlog)

    @property
    def is_set(self) -> bool:
        return bool(self.requests or self.tokens)


@dataclass(frozen=True)
class Amount:
    """So many requests, and so many tokens."""

    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Reservation:
    """What a job holds of its user's quota, and the options that keep its calls within it."""

    prompt_tokens: int
    reply_tokens: int
    options: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """How a user stands today: what is used up, and what unfinished jobs have reserved."""

    used: Amount
    reserved: Amount

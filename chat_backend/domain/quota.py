"""Quotas: how much of the models a user may have in a day, which begins at midnight UTC."""

from __future__ import annotations

from dataclasses import dataclass, field

from chat_backend.domain.prompt import ContextLimits


@dataclass(frozen=True)
class Quota:
    """What each user may have in a day; 0: as much as they like."""

    requests: int = 0
    tokens: int = 0
    # What is reserved for a reply that names no max_tokens.
    reply_tokens: int = 1000
    context: ContextLimits = field(default_factory=ContextLimits)
    # Whether what no longer fits is summed up, which is a call more.
    summed_up: bool = False

    @property
    def is_set(self) -> bool:
        return bool(self.requests or self.tokens)


@dataclass(frozen=True)
class Amount:
    """So many requests, and so many tokens."""

    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Standing:
    """How a user stands today: what is used up, and what unfinished jobs have reserved."""

    used: Amount
    reserved: Amount

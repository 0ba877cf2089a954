"""What a provider counts of a call, and what stands in where it does not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chat_backend.domain import tokens
from chat_backend.domain.limits import MAX_COUNT
from chat_backend.domain.prompt import Turn


@dataclass(frozen=True)
class Usage:
    """Tokens and cost of one call; None where nobody said. `estimated`: our guess, not the provider's count.

    Cached tokens are among those of the prompt, reasoning tokens among those of the completion. The cost is in
    the provider's own currency.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: float | None = None
    estimated: bool = False

    @classmethod
    def read(cls, said: Mapping[str, Any] | None) -> Usage:
        """Read a `usage` object; what in it is no count is left out."""
        said = said or {}
        return cls(
            prompt_tokens=_count(said.get("prompt_tokens")),
            completion_tokens=_count(said.get("completion_tokens")),
            cached_tokens=_count(_inner(said, "prompt_tokens_details").get("cached_tokens")),
            reasoning_tokens=_count(_inner(said, "completion_tokens_details").get("reasoning_tokens")),
            cost=_amount(said.get("cost")),
        )

    @classmethod
    def guess(cls, turns: tuple[Turn, ...], text: str) -> Usage:
        """Return about what a call came to whose provider has begun to answer and counted nothing."""
        return cls(tokens.estimate_turns(turns), tokens.estimate(text), estimated=True)


def _inner(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = said.get(name)
    return found if isinstance(found, dict) else {}


def _count(value: object) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return value if good and isinstance(value, int) else None


def _amount(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if good and isinstance(value, int | float) else None

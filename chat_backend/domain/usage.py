"""What a provider counts of a call, and what stands in where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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

    def filled(self, turns: tuple[Turn, ...], text: str, *, thought_bytes: int = 0) -> Usage:
        """Return these counts with about what the call came to where its provider left something out.

        What a model thought aloud is billed like what it wrote.
        """
        if self.prompt_tokens is not None and self.completion_tokens is not None:
            return self
        prompt, written = self.prompt_tokens, self.completion_tokens
        return replace(
            self,
            prompt_tokens=tokens.estimate_turns(turns) if prompt is None else prompt,
            completion_tokens=tokens.estimate(text) + tokens.of_bytes(thought_bytes) if written is None else written,
            estimated=True,
        )


def _inner(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = said.get(name)
    return found if isinstance(found, dict) else {}


def _count(value: object) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return value if good and isinstance(value, int) else None


def _amount(value: object) -> float | None:
    # Compared before anything is made of it: a whole number may be too large for a float.
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return float(value) if good and isinstance(value, int | float) else None

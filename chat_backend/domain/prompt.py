"""What is sent to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# What a session or a request may say of how a reply is written; each provider spells them its own way.
OPTIONS = ("temperature", "top_p", "max_tokens", "stop", "seed", "response_format", "reasoning_effort")


@dataclass(frozen=True)
class Turn:
    """One message in a prompt."""

    role: str
    content: str


@dataclass(frozen=True)
class PromptRequest:
    """A prompt and how it shall be answered; an option that is absent is left to the provider.

    The name is the attempt's own (request, job, number), for the provider's logs.
    """

    model: str
    turns: tuple[Turn, ...]
    # Some of OPTIONS, by their names in our interface.
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class ContextLimits:
    """How many tokens of a conversation are sent: at most `tokens`, and what a model can take where that is known."""

    tokens: int = 8192
    # By `PROVIDER:model`: the whole window, prompt and reply together.
    windows: Mapping[str, int] = field(default_factory=dict)

    def budget(self, provider: str, model: str, *, asked: int | None = None, max_tokens: int | None = None) -> int:
        """Return the tokens of a prompt; of a known window, room is left for the reply."""
        wanted = asked or self.tokens
        window = self.windows.get(f"{provider}:{model}")
        if window is None:
            return wanted
        return min(wanted, window - min(max_tokens or window // 4, window // 2))

    def reply(self, provider: str, model: str, *, max_tokens: int, budget: int) -> int:
        """Return how long a reply may be beside a prompt of that budget: servers refuse what exceeds the window."""
        window = self.windows.get(f"{provider}:{model}")
        return max_tokens if window is None else max(1, min(max_tokens, window - budget))

"""What is sent to a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# What a session or a request may say of how a reply is written; each provider spells them its own way.
OPTIONS = ("temperature", "top_p", "max_tokens", "stop", "seed", "response_format", "reasoning_effort")


@dataclass(frozen=True)
class Turn:
    """One message in a prompt."""

    role: str
    content: str


# Stands where a strict template wants a user's message and there is none.
_SILENT_USER = Turn("user", "...")


def alternating(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """Return turns as the strictest chat templates want them.

    At most one system turn, at the beginning; then user and assistant in alternation, beginning and ending with the
    user, none of them blank. Texts of one role in a row become one turn.
    """
    turns = list(turns)
    said = [turn for turn in turns if turn.content.strip()]
    told = "\n\n".join(turn.content for turn in said if turn.role == "system")
    merged: list[Turn] = []
    for turn in said:
        if turn.role == "system":
            continue
        if merged and merged[-1].role == turn.role:
            turn = Turn(turn.role, f"{merged.pop().content}\n\n{turn.content}")
        merged.append(turn)
    if not merged or merged[0].role != "user":
        merged.insert(0, _SILENT_USER)
    if merged[-1].role != "user":
        merged.append(_SILENT_USER)
    return (*([Turn("system", told)] if told else []), *merged)


def without_system(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return turns whose first user turn begins with what the system turn says, for models that take none."""
    if len(turns) < 2 or turns[0].role != "system":
        return tuple(turns)
    system, first, *rest = turns
    return (Turn(first.role, f"{system.content}\n\n{first.content}"), *rest)


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
    # Whether the first token may take twice as long as usual.
    patient: bool = False


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

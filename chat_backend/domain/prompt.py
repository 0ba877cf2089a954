"""What is sent to a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One message in a prompt."""

    role: str
    content: str


@dataclass(frozen=True)
class PromptRequest:
    """A prompt and how it shall be answered; None leaves a choice to the provider."""

    model: str
    turns: tuple[Turn, ...]
    temperature: float | None = None
    max_tokens: int | None = None

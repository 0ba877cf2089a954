"""What every provider promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from chat_backend.domain.prompt import PromptRequest, Turn

__all__ = ["Completion", "PromptRequest", "Provider", "Turn"]


@dataclass(frozen=True)
class Completion:
    """How a reply ended, and what the provider counted; None where it did not say."""

    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    usage: dict[str, Any] | None = None
    generation_id: str | None = None
    model: str | None = None


class Provider(Protocol):
    """A place that answers prompts."""

    name: str
    configured: bool

    async def stream(self, request: PromptRequest, on_text: Callable[[str], None]) -> Completion:
        """Ask for a reply; hand its text to `on_text` as it arrives.

        Pieces that came in one read of the network come as one call. Returns once the reply is whole;
        raises a ProviderError otherwise, and nothing else of its own. Cancelling closes the connection at once.
        """
        ...

    async def models(self) -> list[str]:
        """List the models there are. Raises ProviderError."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...

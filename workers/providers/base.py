"""What every provider promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from chat_backend.domain.prompt import PromptRequest, Turn
from chat_backend.domain.usage import Usage

__all__ = ["Completion", "PromptRequest", "Provider", "Turn"]


@dataclass
class Completion:
    """What a provider has said of its reply so far, however it ends; None where it did not say."""

    http_status: int | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    generation_id: str | None = None
    model: str | None = None
    # How much the model has thought aloud: nobody is shown it, and it is billed.
    thought_bytes: int = 0

    @property
    def counts(self) -> Usage:
        """Return what the provider counted."""
        return Usage.read(self.usage)


class Provider(Protocol):
    """A place that answers prompts."""

    name: str
    configured: bool

    async def stream(
        self, request: PromptRequest, on_text: Callable[[str], None], known: Completion | None = None
    ) -> Completion:
        """Ask for a reply; hand its text to `on_text` as it arrives.

        Pieces that came in one read of the network come as one call. Returns once the reply is whole;
        raises a ProviderError otherwise, and nothing else of its own. Cancelling closes the connection at once.
        `known` is what is returned, filled in on the way: what was said before an error or a cancel is in it.
        """
        ...

    async def models(self) -> list[str]:
        """List the models there are. Raises ProviderError."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...

"""The names of everything in Redis."""

from __future__ import annotations

from uuid import UUID

PREFIX = "chat:"
WORKERS = "chat:workers"
WANTED_MODELS = "chat:wanted-models"
# Text on its way, of all chat sessions: what a worker has at one moment goes out as one message.
LIVE_TEXTS = "chat:live"
WEB_PROCESSES = "chat:web"
WORKER_PROCESSES = "chat:worker"


def session_channel(session_id: UUID | str) -> str:
    """Where everything that happens in a chat session is published."""
    return f"chat:s:{session_id}"


def live_text_key(message_id: UUID | str, attempt: int) -> str:
    """Where the text of a running attempt grows."""
    return f"chat:live:{message_id}:{attempt}"


def presence_key(session_id: UUID | str) -> str:
    return f"chat:presence:{session_id}"


def models_key(provider: str, what: str = "list") -> str:
    """Where a provider's models are kept, and what is said of them."""
    return f"chat:models:{provider}:{what}"


def user_connections_key(user_id: str) -> str:
    return f"chat:user:{user_id}"


def rate_key(digest: str) -> str:
    """Where what someone has asked for is counted."""
    return f"chat:rate:{digest}"

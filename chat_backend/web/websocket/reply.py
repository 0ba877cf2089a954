"""A reply being written, as one hub knows it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from chat_backend.domain.enums import Action, MessageStatus
from chat_backend.protocol.events import delta_head, message_update


class TextBuffer:
    """A growing text: cheap to append to, cheap to read from any position. Counts code points."""

    def __init__(self, text: str = "") -> None:
        self._parts = [text] if text else []
        self._length = len(text)

    def __len__(self) -> int:
        return self._length

    def append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)

    def whole(self) -> str:
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""


class Reply:
    """One reply in progress: its message, its attempt, and its text, which within an attempt only grows."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.message_id: str = message["id"]
        self.job_id: str = message["job_id"]
        self.attempt: int = message["attempt"]
        self.text = TextBuffer(message["content"])
        self.next_snapshot_at = 0.0
        self.snapshot_due = False
        self.last_grown_at = 0.0
        self._message = message
        self._delta_head: tuple[int, str] | None = None

    def delta_head(self, session_id: UUID) -> str:
        """Return what the message_delta frames of this attempt begin with."""
        if self._delta_head is None or self._delta_head[0] != self.attempt:
            self._delta_head = self.attempt, delta_head(session_id, self.message_id, self.attempt)
        return self._delta_head[1]

    @property
    def begun(self) -> bool:
        return self.attempt > 0

    def restart(self, attempt: int, message: dict[str, Any] | None = None) -> None:
        """Begin a new attempt; its text starts with what the message holds."""
        self._message = message or self._message
        self.attempt = attempt
        self.text = TextBuffer(message["content"] if message else "")

    def grow(self, start: int, text: str) -> str | None:
        """Add a piece; return what was new of it, or None where a piece before it is missing."""
        known = len(self.text)
        if start > known:
            return None
        new = text[known - start :] if start < known else text
        if new:
            self.text.append(new)
        return new

    def answered_by(self, attempt: dict[str, Any]) -> None:
        """Note who writes this reply, as the job's newest attempt tells."""
        self._message = self._message | {"llm_provider": attempt["provider"], "llm_model": attempt["model"]}

    def snapshot(self) -> dict[str, Any]:
        """Return the frame body that shows the text so far."""
        shape = self._message | {
            "content": self.text.whole(),
            "attempt": self.attempt,
            "status": MessageStatus.STREAMING.value,
            "is_streaming": True,
        }
        return message_update(shape, Action.STREAMING)

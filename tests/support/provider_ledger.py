"""What the stub remembers of every request, to compare with what we stored."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Entry:
    """One request for a completion; times are (monotonic, epoch) seconds."""

    id: int
    model: str
    last_user_message: str
    turns: list[dict[str, Any]]
    stream: bool
    parameters: dict[str, Any]
    headers: dict[str, str]  # names in lower case
    peer_port: int  # the same for requests on one connection
    received_at: tuple[float, float]
    pieces: list[str] = field(default_factory=list)
    status: int | None = None
    usage: dict[str, Any] | None = None  # what was told to the client
    finished: bool = False
    disconnected: bool = False
    dropped: bool = False  # closed without a byte of an answer
    ended_at: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what is known by now; it is asked for often, so what does not change is not copied."""
        return vars(self) | {"pieces": list(self.pieces), "text": "".join(self.pieces)}


def _last_question(content: str) -> str:
    """Return the newest of the questions that are sent as one message; a task of ours is one question."""
    return content if content.startswith(("Sum up the conversation", "Give the ")) else content.rpartition("\n\n")[2]


class Ledger:
    """Every request since the start, or since it was cleared."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.models_asked = 0
        self._asked: Counter[str] = Counter()

    def open(self, body: dict[str, Any], headers: dict[str, str], peer_port: int) -> Entry:
        turns = body.get("messages") or []
        asked = [_last_question(turn["content"]) for turn in turns if turn.get("role") == "user"]
        more = {name: value for name, value in body.items() if name not in ("messages", "model", "stream")}
        entry = Entry(
            id=len(self.entries) + 1,
            model=str(body.get("model")),
            last_user_message=asked[-1] if asked else "",
            turns=turns,
            stream=bool(body.get("stream")),
            parameters=more,
            headers=headers,
            peer_port=peer_port,
            received_at=moment(),
        )
        self.entries.append(entry)
        return entry

    def times_asked(self, entry: Entry) -> int:
        """Count the requests for the same model and message, this one included."""
        key = f"{entry.model}\n{entry.last_user_message}"
        self._asked[key] += 1
        return self._asked[key]

    def clear(self) -> None:
        self.entries.clear()
        self.models_asked = 0
        self._asked.clear()


def moment() -> tuple[float, float]:
    return time.monotonic(), time.time()

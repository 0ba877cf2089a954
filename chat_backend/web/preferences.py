"""`Prefer` (RFC 7240): whether, and how long, a client would wait."""

from __future__ import annotations

from dataclasses import dataclass

from werkzeug.http import parse_list_header

from chat_backend.domain.limits import MAX_WAIT_SECONDS, WAIT_SECONDS


@dataclass(frozen=True)
class Preference:
    """What a client prefers. Where it says nothing, or nonsense, both are unset."""

    respond_async: bool = False
    wait_seconds: int | None = None

    @classmethod
    def of(cls, header: str) -> Preference:
        """Read the header; of a preference given twice the first counts, malformed ones are ignored."""
        found: dict[str, str] = {}
        for item in parse_list_header(header):
            name, _, value = item.partition(";")[0].partition("=")
            found.setdefault(name.strip().lower(), value.strip().strip('"'))
        return cls(found.get("respond-async") == "", _seconds(found.get("wait", "")))

    def waits(self, *, stream: bool) -> int:
        """Return for how many seconds a request may wait."""
        if self.wait_seconds is not None:
            return self.wait_seconds
        return 0 if stream or self.respond_async else WAIT_SECONDS

    def at_once(self, *, stream: bool) -> bool:
        """Whether the answer is 202 in any case: nobody would wait at all."""
        return self.wait_seconds is None and (stream or self.respond_async)

    @property
    def applied(self) -> str:
        """What to say in Preference-Applied; empty where nothing was preferred."""
        wait = None if self.wait_seconds is None else f"wait={self.wait_seconds}"
        return ", ".join(filter(None, ["respond-async" if self.respond_async else None, wait]))


def _seconds(text: str) -> int | None:
    if not text.isascii() or not text.isdigit():
        return None
    digits = text.lstrip("0") or "0"
    return MAX_WAIT_SECONDS if len(digits) > 3 else min(int(digits), MAX_WAIT_SECONDS)

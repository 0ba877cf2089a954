"""Where a reply's text and its reasoning stand in what a server sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Each names the same reasoning: a server that fills several repeats itself.
_REASONING = ("reasoning", "reasoning_content", "reasoning_text", "thinking", "reasoning_details")
_REASONING_PARTS = ("thinking", "reasoning", "thought", "summary")
# What may stand in a reply beside its text.
_OTHER = {"role", "name", "tool_calls", "function_call", "audio", "images", "annotations", "citations"}
_TEXT_FIELDS = {"content", "refusal"}


def text_in(written: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text and the reasoning of a `delta` or a `message`.

    Raises TypeError if the content is of no known form.
    """
    text, reasoning = split(written.get("content"))
    if not text and isinstance(refusal := written.get("refusal"), str):
        # A model that declines says so in a field of its own (OpenAI): it is what it answers.
        text = refusal
    return text, reasoning or next(filter(None, (_all_text(written.get(name)) for name in _REASONING)), "")


def has_unread(written: Mapping[str, Any]) -> bool:
    """Whether there is something in a `delta` or a `message` that may be a text we do not know."""
    content = written.get("content")
    if isinstance(content, list | dict) and content:
        return True
    known = _OTHER | _TEXT_FIELDS | set(_REASONING)
    return any(isinstance(value, str | list | dict) and value for name, value in written.items() if name not in known)


def split(content: Any) -> tuple[str, str]:
    """Return the text and the reasoning of a content: a text, a part, or a list of parts.

    Raises TypeError if it is neither.
    """
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, list):
        pairs = [split(part) for part in content]
        return "".join(text for text, _ in pairs), "".join(reasoning for _, reasoning in pairs)
    if not isinstance(content, dict):
        raise TypeError("not a content")
    if isinstance(content.get("parts"), list):
        return split(content["parts"])
    kind = content.get("type")
    if content.get("thought") is True or (isinstance(kind, str) and any(word in kind for word in _REASONING_PARTS)):
        return "", _all_text(content)
    return _text_of(content), ""


def _text_of(part: Mapping[str, Any]) -> str:
    text = part.get("text") or part.get("refusal")
    if isinstance(text, dict):
        text = text.get("value")
    return text if isinstance(text, str) else ""


def _all_text(value: Any) -> str:
    """Return the text of a reasoning field or part, however deep it is nested."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_all_text, value))
    if isinstance(value, dict):
        return next(filter(None, (_all_text(value.get(name)) for name in ("text", "summary", *_REASONING))), "")
    return ""

"""Titles of chat sessions that nobody has named."""

from __future__ import annotations

import re

from chat_backend.domain import thoughts
from chat_backend.domain.prompt import Turn
from chat_backend.domain.text import cut, is_boundary

TITLE_LENGTH = 60
TITLE_TOKENS = 40
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
# What turns writing around, or can't be seen at all.
_UNSEEN = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_LABEL = re.compile(r"^\s*(?:chat\s+)?title\s*[:\-]\s*", re.IGNORECASE)
_ORNAMENT = " \t\"'`*#_.:;,-\u2013\u2014\u2018\u2019\u201c\u201d\u00ab\u00bb"


_TASK = (
    "Give the conversation below a title of at most six words, in the conversation's language. "
    "Answer with the title alone."
)
_SHOWN = 1000


def task(question: str, reply: str) -> tuple[Turn, ...]:
    """Return the prompt that asks for a title of a conversation that begins so."""
    return (Turn("user", f"{_TASK}\n\nuser: {cut(question, _SHOWN)}\n\nassistant: {cut(reply, _SHOWN)}"),)


def from_words(text: str) -> str | None:
    """Return the first words of a message as a title; None where there are none."""
    return _shortened(_one_line(text)) or None


def from_model(text: str) -> str | None:
    """Return the title in a model's answer, without quotes, labels and markup around it; None if nothing is left."""
    first = next((line for line in map(_bare, thoughts.without(text).splitlines()) if line), "")
    return _shortened(_bare(_one_line(_LABEL.sub("", first)))) or None


def _bare(line: str) -> str:
    """Strip ornaments from both ends. A sign that carries a mark, such as a keycap, is no ornament."""
    start, end = 0, len(line)
    while start < end and line[start] in _ORNAMENT and is_boundary(line, start + 1):
        start += 1
    while end > start and line[end - 1] in _ORNAMENT:
        end -= 1
    return line[start:end]


def _one_line(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", _UNSEEN.sub("", text)).split())


def _shortened(line: str) -> str:
    if len(line) <= TITLE_LENGTH:
        return line
    words = cut(line, TITLE_LENGTH).rpartition(" ")[0]
    # One endless word is cut where it is.
    return f"{words if len(words) > TITLE_LENGTH // 2 else cut(line, TITLE_LENGTH - 1)}\u2026"

"""What reasoning models think before they answer: room for it where only the answer is wanted, and the answer alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A reasoning model that has no room to think uses up a short limit before it has written a word.
ROOM_TOKENS = 1000
_BRIEF = ("none", "minimal", "low")
_THOUGHT = re.compile("<think>.*?</think>", re.DOTALL)
_OPENING, _CLOSING = "<think>", "</think>"
# A closing tag on a line of its own; elsewhere the answer may be speaking about the tag.
_CLOSING_LINE = re.compile(r"^[ \t]*</think>[ \t]*$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\A\s*\n")
_MOST_SPACE = 1000


def options(most_tokens: int, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a call for so many tokens of text; `wanted` are those of the reply.

    Where the reply names an effort, the model is known to take one, and a low one will do here.
    """
    effort = wanted.get("reasoning_effort")
    limit = {"max_tokens": most_tokens + ROOM_TOKENS}
    return limit if effort is None else limit | {"reasoning_effort": effort if effort in _BRIEF else "low"}


def without(text: str) -> str:
    """Return a text without thoughts that a server left in it; of one that never ended, nothing that follows."""
    # Some templates begin the thought themselves: then only its end is in the text.
    said = _THOUGHT.sub("", text).rpartition("</think>")[2]
    return said.partition("<think>")[0].strip()


class ThoughtSplitter:
    """Splits the text of a reply, however it is cut, into reasoning and answer.

    Reasoning is what stands between `<think>` and `</think>` before the answer begins; without a closing tag, all that
    follows. White space before it and blank lines after it belong to neither. Tags within the answer are text.
    """

    def __init__(self) -> None:
        self.answering = False
        self._held = ""
        self._inside = False
        self._thought = False

    def feed(self, piece: str) -> tuple[str, str]:
        """Return the reasoning and the answer that are known with this piece; the rest is held back."""
        if self.answering:
            return "", piece
        self._held += piece
        reasoning = ""
        while self._inside or self._enters():
            more, closed, rest = self._held.partition(_CLOSING)
            if not closed:
                held = _tail(self._held)
                reasoning += self._held[: len(self._held) - len(held)]
                self._held = held
                return reasoning, ""
            reasoning += more
            self._held, self._inside = rest, False
        begun = self._held.lstrip()
        if _OPENING.startswith(begun) and len(self._held) < _MOST_SPACE:
            return reasoning, ""
        self.answering = True
        return reasoning, self._take()

    def end(self) -> tuple[str, str]:
        """Return what was held back."""
        return (self._take(), "") if self._inside else ("", self._take())

    def _enters(self) -> bool:
        begun = self._held.lstrip()
        if not begun.startswith(_OPENING):
            return False
        self._held = begun.removeprefix(_OPENING)
        self._inside = self._thought = True
        return True

    def _take(self) -> str:
        held, self._held = self._held, ""
        if self._inside or not self._thought:
            return held
        return _BLANK_LINES.sub("", held) if held.strip() else ""


def _tail(text: str) -> str:
    """Return the end of a text that may be the beginning of a closing tag."""
    sizes = range(len(_CLOSING) - 1, 0, -1)
    return next((_CLOSING[:size] for size in sizes if text.endswith(_CLOSING[:size])), "")


def answer_in(text: str) -> str:
    """Return a whole reply without the reasoning at its beginning."""
    splitter = ThoughtSplitter()
    _, answer = splitter.feed(text)
    answer += splitter.end()[1]
    # Some templates open the tag themselves: then only its end is in the text.
    *_, answer = _CLOSING_LINE.split(answer) if _OPENING not in answer else [answer]
    return answer if answer == text else answer.strip()

"""What reasoning models think before they answer: room for it where only the answer is wanted, and the answer alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A reasoning model that has no room to think uses up a short limit before it has written a word.
ROOM_TOKENS = 1000
_BRIEF = ("none", "minimal", "low")
_THOUGHT = re.compile("<think>.*?</think>", re.DOTALL)


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

"""What a model is asked when the beginning of a conversation no longer fits: to sum it up."""

from __future__ import annotations

from collections.abc import Sequence

from chat_backend.domain import thoughts
from chat_backend.domain.prompt import Turn
from chat_backend.domain.tokens import BYTES_PER_TOKEN

MOST_TOKENS = 512
LEAST_TOKENS = 48
_WORDS_PER_TOKEN = 0.6
_TASK = (
    "Sum up the conversation below in at most {words} words, so that it can go on without it. Keep names, numbers, "
    "decisions and open questions, in the conversation's language. Answer with the summary alone."
)
# How many times a prompt is read back to be summed up: what is older was too much for one call.
FACTOR = 4


def size(budget: int) -> int:
    """Return how many tokens a summary may have where a prompt may have so many."""
    return max(LEAST_TOKENS, min(MOST_TOKENS, budget // 4))


def task(known: str | None, turns: Sequence[Turn], *, most_tokens: int, budget: int) -> tuple[Turn, ...]:
    """Return the prompt that asks for a summary of turns, going on from the one that is known.

    One turn of a user, so that no model answers the conversation instead. Where it is too much, the longest lose
    their ends: something of everything is told.
    """
    parts = [f"{turn.role}: {turn.content}" for turn in turns]
    if known:
        parts.insert(0, f"What came before, summed up:\n{known}")
    share = _share([len(part.encode("utf-8", "replace")) for part in parts], budget * BYTES_PER_TOKEN)
    told = _TASK.format(words=int(most_tokens * _WORDS_PER_TOKEN))
    return (Turn("user", "\n\n".join([told, *(_cut(part, share) for part in parts)])),)


def _share(sizes: Sequence[int], room: int) -> int:
    """Return how much of each may stay so that all fit: what the short ones leave over, the long ones share."""
    for index, size in enumerate(sorted(sizes)):
        fair = room // (len(sizes) - index)
        if size > fair:
            return max(fair, 1)
        room -= size
    return max(sizes)


def _cut(text: str, size: int) -> str:
    return text.encode("utf-8", "replace")[:size].decode(errors="ignore")


def bounded(text: str, most_tokens: int) -> str:
    """Return a summary no longer than it may be, whatever the model wrote."""
    return _cut(thoughts.without(text), most_tokens * BYTES_PER_TOKEN)

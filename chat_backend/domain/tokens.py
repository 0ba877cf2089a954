"""Estimates of what a provider will count, for where it has not told yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypeVar

from chat_backend.domain.prompt import Turn

TURN_OVERHEAD = 4
BYTES_PER_TOKEN = 4

T = TypeVar("T")


def estimate(text: str) -> int:
    """Return about how many tokens a text is; 0 for none."""
    return of_bytes(len(text.encode("utf-8", "replace")))


def of_bytes(size: int) -> int:
    """Return about how many tokens so many bytes of text are."""
    return -(-size // BYTES_PER_TOKEN)


def estimate_turns(turns: Iterable[Turn]) -> int:
    """Return about how many tokens turns are, with what each costs beside its text."""
    return sum(estimate(turn.content) + TURN_OVERHEAD for turn in turns)


def newest_that_fit(groups: Iterable[tuple[T, int]], budget: int) -> tuple[list[T], Iterator[tuple[T, int]]]:
    """Return the groups, given newest first with their cost, until one does not fit, and the rest with their costs.

    The first always fits. The rest is read only when it is asked for.
    """
    fitting: list[T] = []
    left = iter(groups)
    for group, cost in left:
        budget -= cost
        if budget < 0 and fitting:
            return fitting, chain([(group, cost)], left)
        fitting.append(group)
    return fitting, left

"""How many frames a connection may send, and how many bytes."""

from __future__ import annotations

import time
from collections.abc import Callable

from chat_backend.domain import limits

# Of each frame that a socket may send in a second. A few of the largest may come at once all the same.
BYTES_PER_FRAME = 8 * 1024
LARGEST_AT_ONCE = 4


class FrameRate:
    """A token bucket: so many frames a second, and twice as many at once unless told otherwise."""

    def __init__(
        self, per_second: float, *, at_once: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._capacity = at_once or per_second * 2
        self._clock = clock
        self._left = self._capacity
        self._at = clock()

    def allows(self, amount: int = 1) -> bool:
        """Count one more, or as many more, and say whether that is within the rate."""
        at = self._clock()
        self._left = min(self._capacity, self._left + (at - self._at) * self._per_second)
        self._at = at
        if self._left < amount:
            return False
        self._left -= amount
        return True


def byte_rate(frames_per_second: float) -> FrameRate:
    """Return how many bytes the frames of a connection may have."""
    per_second = frames_per_second * BYTES_PER_FRAME
    return FrameRate(per_second, at_once=max(2 * per_second, LARGEST_AT_ONCE * limits.FRAME_BYTES))

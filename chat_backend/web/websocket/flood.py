"""How many frames a connection may send."""

from __future__ import annotations

import time
from collections.abc import Callable


class FrameRate:
    """A token bucket: so many frames a second, and as many again at once."""

    def __init__(self, per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._capacity = per_second * 2
        self._clock = clock
        self._left = self._capacity
        self._at = clock()

    def allows(self) -> bool:
        """Count one more frame, and say whether it is within the rate."""
        at = self._clock()
        self._left = min(self._capacity, self._left + (at - self._at) * self._per_second)
        self._at = at
        if self._left < 1:
            return False
        self._left -= 1
        return True

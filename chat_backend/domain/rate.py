"""How often something may happen: so many a minute, and as many at once; and how fast someone may go on."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MINUTE_SECONDS = 60.0
NAMES_KEPT = 10_000


@dataclass(frozen=True)
class Rate:
    """What someone may take: `per_minute` at once, and then one for every `interval_seconds` that pass."""

    what: str
    who: str
    per_minute: int

    @property
    def name(self) -> str:
        # No user id holds a control character, so nobody can be called what someone else is counted by.
        return f"{self.what}\0{self.who}"

    @property
    def interval_seconds(self) -> float:
        return MINUTE_SECONDS / self.per_minute


class Times:
    """A time for each of some names; of very many, those set longest ago are forgotten."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._times: OrderedDict[str, float] = OrderedDict()

    def get(self, name: str) -> float:
        return self._times.get(name, 0.0)

    def set(self, name: str, at: float) -> None:
        self._times[name] = at
        self._times.move_to_end(name)
        if len(self._times) > self._kept:
            self._times.popitem(last=False)


class LocalRates:
    """Counts by name within this process. Of a name is kept when all that it has taken will be earned."""

    def __init__(self, *, kept: int = NAMES_KEPT, clock: Callable[[], float] = time.monotonic) -> None:
        self._earned_at = Times(kept)
        self._clock = clock
        self._lock = threading.Lock()

    def take(self, rates: Sequence[Rate]) -> tuple[Rate, float] | None:
        """Take one of each rate, or none; return which refuses, and the seconds until it would not."""
        with self._lock:
            at = self._clock()
            earned_at = [max(at, self._earned_at.get(rate.name)) + rate.interval_seconds for rate in rates]
            for rate, earned in zip(rates, earned_at, strict=True):
                # Sums of fractions must not cost the last of so many.
                if (wait := earned - at - MINUTE_SECONDS) > rate.interval_seconds / 1000:
                    return rate, wait
            for rate, earned in zip(rates, earned_at, strict=True):
                self._earned_at.set(rate.name, earned)
            return None


class Paces:
    """Slows down by name whoever hurries, and refuses nobody: so many at once, and then one an interval."""

    def __init__(
        self,
        at_once: int,
        interval_seconds: float,
        *,
        kept: int = NAMES_KEPT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval_seconds = interval_seconds
        self._ahead_seconds = at_once * interval_seconds
        self._earned_at = Times(kept)
        self._clock = clock
        self._lock = threading.Lock()

    def wait(self, name: str) -> float:
        """Take one; return the seconds until it may begin, 0 for at once."""
        with self._lock:
            at = self._clock()
            earned = max(at, self._earned_at.get(name)) + self._interval_seconds
            self._earned_at.set(name, earned)
            return max(0.0, earned - at - self._ahead_seconds)


class Refusals:
    """Remembers who was refused, until it is worth asking again: a flood is then answered without asking anyone."""

    def __init__(self, *, kept: int = NAMES_KEPT, clock: Callable[[], float] = time.monotonic) -> None:
        self._until = Times(kept)
        self._clock = clock
        self._lock = threading.Lock()

    def left(self, rate: Rate) -> float:
        """Return for how many seconds more a name is refused; 0 or less: no longer."""
        with self._lock:
            return self._until.get(rate.name) - self._clock()

    def note(self, rate: Rate, seconds: float) -> None:
        with self._lock:
            self._until.set(rate.name, self._clock() + seconds)

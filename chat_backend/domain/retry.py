"""When to ask a provider again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from chat_backend.domain.errors import ConnectionRefused, ErrorCode, ProviderError, ProviderTimeout

LONGEST_RETRY_AFTER_SECONDS = 60.0
# A timeout takes minutes: who waits for the reply should not wait for a third.
MOST_TIMEOUTS = 2


@dataclass(frozen=True)
class RetryPolicy:
    """Full-jitter exponential backoff, capped; a provider's own `Retry-After` comes first."""

    max_attempts: int
    base_seconds: float
    cap_seconds: float
    # How long a server that is starting, or loading its model, is waited for.
    starting_seconds: float = 0.0

    def delay(
        self,
        error: ProviderError,
        failures: int,
        *,
        timeouts: int = 0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> float | None:
        """Tell the seconds until the next attempt, or None when this provider is used up.

        `failures` counts the failed attempts at this provider, this one included, and `timeouts` those of them that
        timed out.
        """
        if isinstance(error, ProviderTimeout) and timeouts >= MOST_TIMEOUTS:
            return None
        retry_after = error.retry_after_seconds or 0.0
        if not error.retryable or failures >= self.max_attempts or retry_after > LONGEST_RETRY_AFTER_SECONDS:
            return None
        # Full jitter: a crowd of jobs that failed together must not come back together.
        backoff = uniform(0, min(self.cap_seconds, self.base_seconds * 2 ** max(0, failures - 1)))
        return max(backoff, retry_after)

    def waits_for(self, error: ProviderError, *, is_last: bool) -> bool:
        """Tell whether a failed attempt means waiting for a server that is not ready yet, and is no failure.

        A refused connection may mean a dead server: that is waited for only if the provider is the last to be asked.
        """
        if self.max_attempts == 1 or not self.starting_seconds:
            return False
        return error.code == ErrorCode.MODEL_LOADING or (is_last and isinstance(error, ConnectionRefused))

    def starting_delay(
        self,
        error: ProviderError,
        waits: int,
        waited_seconds: float,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> float | None:
        """Return the seconds until a server that is not ready is asked again; None if it has taken too long.

        `waits` counts the attempts that found it so, this one included; `waited_seconds` is since the first of them.
        """
        left = self.starting_seconds - waited_seconds
        if left <= 0:
            return None
        step = min(self.cap_seconds, self.base_seconds * 2 ** min(max(0, waits - 1), 20))
        hint = min(error.retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)
        return min(max(uniform(step / 2, step), hint), left)

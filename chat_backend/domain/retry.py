"""When to ask a provider again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from chat_backend.domain.errors import ProviderError, ProviderTimeout

LONGEST_RETRY_AFTER_SECONDS = 60.0
# A timeout takes minutes: who waits for the reply should not wait for a third.
MOST_TIMEOUTS = 2


@dataclass(frozen=True)
class RetryPolicy:
    """Full-jitter exponential backoff, capped; a provider's own `Retry-After` comes first."""

    max_attempts: int
    base_seconds: float
    cap_seconds: float

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

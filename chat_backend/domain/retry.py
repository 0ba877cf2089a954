"""When to ask a provider again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from chat_backend.domain.errors import ProviderError

LONGEST_RETRY_AFTER_SECONDS = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """Full-jitter exponential backoff, capped; a provider's own `Retry-After` comes first."""

    max_attempts: int
    base_seconds: float
    cap_seconds: float

    def delay(
        self, error: ProviderError, failures: int, *, uniform: Callable[[float, float], float] = random.uniform
    ) -> float | None:
        """Tell the seconds until the next attempt, or None when this provider is used up.

        `failures` counts the failed attempts at this provider, this one included.
        """
        retry_after = error.retry_after_seconds or 0.0
        if not error.retryable or failures >= self.max_attempts or retry_after > LONGEST_RETRY_AFTER_SECONDS:
            return None
        # Full jitter: a crowd of jobs that failed together must not come back together.
        backoff = uniform(0, min(self.cap_seconds, self.base_seconds * 2 ** max(0, failures - 1)))
        return max(backoff, retry_after)

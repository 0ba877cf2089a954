"""Lists of the providers' models: web processes ask for them, workers bring them, Redis keeps them for a while.

Only workers speak to providers. `chat:models:NAME:list` is what was brought last, `:fresh` says that it is not to
be brought again yet, `:bringing` that a worker is about to. Whoever asks publishes the name to every worker.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import orjson
import redis

from chat_backend.domain.limits import LISTED_MODELS
from chat_backend.realtime.channels import WANTED_MODELS, models_key

KEPT_SECONDS = 86_400
# A provider that did not answer is asked again after this.
FAILED_SECONDS = 10.0
BRINGING_SECONDS = 10.0
# The most that PROVIDER_MODELS_SECONDS may be.
MOST_FRESH_SECONDS = 86_400
# The year 5138: what is later is no time of ours.
LATEST = 1e11


@dataclass(frozen=True)
class ModelList:
    """What is known of a provider's models; `error_code` of why no newer list could be had."""

    models: tuple[str, ...] = ()
    fetched_at: float | None = None
    error_code: str | None = None
    error_message: str | None = None


class ModelLists:
    """The lists in Redis. Every method may raise RedisAway."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def read(self, provider: str) -> tuple[ModelList | None, bool]:
        """Return what was brought last, and whether it is fresh."""
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.mget(models_key(provider))  # not GET: another kind of value is none, and no error
            pipeline.pttl(models_key(provider, "fresh"))
            (data,), left = pipeline.execute()
        known = _read(data)
        return known, known is not None and 0 <= left <= MOST_FRESH_SECONDS * 1000

    def ask(self, provider: str) -> bool:
        """Ask every worker to bring a list, one of them will; say whether any was there to hear it."""
        return bool(self._redis.publish(WANTED_MODELS, provider))

    def may_bring(self, provider: str) -> bool:
        """Tell whether the caller is the one worker to bring a list now, which it must do within BRINGING_SECONDS."""
        _, fresh = self.read(provider)
        if fresh:
            return False
        key, milliseconds = models_key(provider, "bringing"), int(BRINGING_SECONDS * 1000)
        left = self._redis.pttl(key)
        if left == -1 or left > milliseconds:
            self._redis.delete(key)  # no worker of ours says that it is about to for so long
        return bool(self._redis.set(key, 1, nx=True, px=milliseconds))

    def bring(self, provider: str, brought: ModelList, *, fresh_seconds: float) -> None:
        """Keep a list, and say for how long nobody needs to bring another."""
        with self._redis.pipeline() as pipeline:
            pipeline.set(models_key(provider), json.dumps(asdict(brought)), ex=KEPT_SECONDS)
            pipeline.set(models_key(provider, "fresh"), 1, px=int(fresh_seconds * 1000))
            pipeline.delete(models_key(provider, "bringing"))
            pipeline.execute()


def _read(data: bytes | str | None) -> ModelList | None:
    """Read a list; None where there is none, or where somebody else has written there."""
    try:
        # orjson: of what is nested without end, or holds half a character, it says that it is no JSON.
        said: Any = orjson.loads(data) if data else None
        return ModelList(**{**said, "models": tuple(said["models"])}) if _is_list(said) else None
    except (TypeError, ValueError):
        return None


def _is_list(said: Any) -> bool:
    if not isinstance(said, dict) or not isinstance(said.get("models"), list):
        return False
    if len(said["models"]) > LISTED_MODELS:
        return False
    at, words = said.get("fetched_at"), [*said["models"], said.get("error_code") or "", said.get("error_message") or ""]
    return all(isinstance(word, str) for word in words) and (
        at is None or (isinstance(at, int | float) and 0 <= at < LATEST)
    )

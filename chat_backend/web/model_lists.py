"""Lists of the providers' models, as this web process gets them: from Redis, where workers bring them."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

from chat_backend.config import Settings
from chat_backend.domain.errors import ErrorCode
from chat_backend.domain.outage import Outage
from chat_backend.realtime.connection import RedisAway, client
from chat_backend.realtime.model_lists import ModelList, ModelLists

WAIT_SECONDS = 5.0
LOOK_SECONDS = 0.05
# Who waits holds a thread: beyond so many the answer is what is known.
MOST_WAITING = 8

_NOBODY = ModelList(
    error_code=ErrorCode.MODELS_UNKNOWN, error_message="No worker could ask the provider for its models just now."
)
_NOT_CONFIGURED = ModelList(
    error_code=ErrorCode.PROVIDER_NOT_CONFIGURED, error_message="The provider is not configured."
)
_CLOSED = (ErrorCode.PROVIDER_UNREACHABLE, ErrorCode.PROVIDER_CERTIFICATE, ErrorCode.PROVIDER_UNAUTHORIZED)


class ModelCatalogue:
    """Answers from Redis; where nothing fresh is there, asks the workers and waits a little."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lists = ModelLists(client(settings))
        self._outage = Outage(failures=1)
        self._places = threading.BoundedSemaphore(MOST_WAITING)

    def show(self, provider: str) -> dict[str, Any]:
        """Return a provider's models as the interface shows them, within WAIT_SECONDS or so."""
        if not self._settings.is_configured(provider):
            return _shown(provider, _NOT_CONFIGURED, fresh=True)
        try:
            known, fresh = self._known(provider) if self._outage.over() else (None, False)
            self._outage.succeeded()
        except RedisAway:
            self._outage.failed()
            known, fresh = None, False
        return _shown(provider, known or _NOBODY, fresh=fresh)

    def is_closed(self, provider: str) -> bool:
        """Tell whether the provider, when last asked for its models, was not there or did not let us in.

        Does not wait: of an old "no" the next look knows whether it still holds.
        """
        try:
            known, fresh = self._lists.read(provider) if self._outage.over() else (None, False)
            if known is None or known.error_code not in _CLOSED:
                return False
            if not fresh:
                self._lists.ask(provider)
        except RedisAway:
            self._outage.failed()
            return False
        return True

    def _known(self, provider: str) -> tuple[ModelList | None, bool]:
        known, fresh = self._lists.read(provider)
        if fresh or not self._places.acquire(blocking=False):
            return known, fresh
        try:
            return self._wait(provider)
        finally:
            self._places.release()

    def _wait(self, provider: str) -> tuple[ModelList | None, bool]:
        deadline = time.monotonic() + WAIT_SECONDS
        heard = self._lists.ask(provider)
        while True:
            known, fresh = self._lists.read(provider)
            if fresh or not heard or time.monotonic() > deadline:
                return known, fresh
            time.sleep(LOOK_SECONDS)


def _shown(provider: str, known: ModelList, *, fresh: bool) -> dict[str, Any]:
    code, message = known.error_code, known.error_message
    if code is None and not fresh:
        code, message = _NOBODY.error_code, _NOBODY.error_message
    return {
        "provider": provider,
        "models": [{"id": name} for name in known.models],
        "fetched_at": None if known.fetched_at is None else datetime.fromtimestamp(known.fetched_at, UTC),
        "stale": code is not None,
        "error_code": code,
        "error_message": message,
    }

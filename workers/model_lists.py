"""Bring lists of the providers' models to who asks for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from chat_backend.domain.errors import ProviderError
from chat_backend.domain.limits import LISTED_MODELS, MODEL_CHARACTERS
from chat_backend.realtime.connection import RedisAway, RedisClient
from chat_backend.realtime.model_lists import FAILED_SECONDS, ModelList, ModelLists
from workers.providers.base import Provider

log = logging.getLogger(__name__)


class Catalogue:
    """Asks providers for their models, when it is asked to and nobody else does."""

    def __init__(
        self,
        redis: RedisClient,
        providers: Mapping[str, Provider],
        loop: asyncio.AbstractEventLoop,
        *,
        fresh_seconds: float,
        submit: Callable[[Callable[[str], None], str], object],
    ) -> None:
        self._lists = ModelLists(redis)
        self._providers = providers
        self._loop = loop
        self._fresh_seconds = fresh_seconds
        self._submit = submit
        self._waiting: set[str] = set()

    def wanted(self, data: bytes) -> None:
        """Take note of a wish, once until it is begun; from one thread.

        What is no provider's name is nobody's, for anyone who reaches Redis can publish.
        """
        name = data.decode(errors="replace")
        if name in self._providers and name not in self._waiting:
            self._waiting.add(name)
            self._submit(self.bring, name)

    def bring(self, name: str) -> None:
        """Bring a provider's list, if nobody else does and it is not fresh. Waits for the provider, bounded."""
        self._waiting.discard(name)
        try:
            if self._lists.may_bring(name):
                known, _ = self._lists.read(name)
                brought = self._ask(name, known or ModelList())
                seconds = FAILED_SECONDS if brought.error_code else self._fresh_seconds
                self._lists.bring(name, brought, fresh_seconds=seconds)
        except RedisAway as error:
            log.debug("a list of models is lost", extra={"action": "models", "error": type(error).__name__})

    def _ask(self, name: str, known: ModelList) -> ModelList:
        try:
            found = asyncio.run_coroutine_threadsafe(self._providers[name].models(), self._loop).result()
        except ProviderError as error:
            return ModelList(known.models, known.fetched_at, error.code, error.message)
        # What can't be named in a session is of no use in a list.
        usable = [model for model in found if len(model) <= MODEL_CHARACTERS]
        return ModelList(tuple(usable[:LISTED_MODELS]), time.time())

"""Tell other processes what has happened. Never raises; what is lost is found in the database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from uuid import UUID

import redis

from chat_backend.config import Settings
from chat_backend.domain.outage import Outage
from chat_backend.protocol.envelope import Envelope, pack
from chat_backend.realtime.channels import WORKERS, session_channel
from chat_backend.realtime.connection import client

log = logging.getLogger(__name__)


class Publisher:
    """Publishes to chat sessions and to workers; while Redis is away, gives up at once."""

    def __init__(self, settings: Settings, *, connect: Callable[[Settings], redis.Redis] = client) -> None:
        self.redis = connect(settings)
        # At once: a request that cancels and then tells would otherwise wait twice.
        self._outage = Outage(failures=1)

    def publish(self, envelopes: list[tuple[UUID, Envelope]]) -> bool:
        """Publish to chat sessions, in order; say whether it went out."""
        return self._send([(session_channel(session_id), pack(envelope)) for session_id, envelope in envelopes])

    def cancel(self, job_ids: list[UUID]) -> bool:
        """Tell every worker to stop these jobs."""
        return self._send([(WORKERS, str(job_id).encode()) for job_id in job_ids])

    def _send(self, messages: list[tuple[str, bytes]]) -> bool:
        if not self._outage.over():
            return False
        try:
            pipeline = self.redis.pipeline(transaction=False)
            for channel, data in messages:
                pipeline.publish(channel, data)
            pipeline.execute()
        except redis.RedisError as error:
            self._outage.failed()
            log.warning("could not publish", extra={"action": "publish", "error": type(error).__name__})
            return False
        self._outage.succeeded()
        return True

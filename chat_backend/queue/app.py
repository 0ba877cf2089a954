"""The Celery app of every process: its broker is the one of our settings."""

from __future__ import annotations

from typing import Any

from celery import Celery


class App(Celery):
    """A Celery app that ignores the variables in which Celery looks for a broker and a result backend.

    Celery prefers CELERY_BROKER_URL, as it stands in the environment, to the setting `broker_url`. It would connect to
    a `rediss://` address there without verifying the certificate, because the TLS options are added by our settings.
    """

    backend_cls = "disabled"

    def connection(self, hostname: str | None = None, **more: Any) -> Any:
        return super().connection(hostname or self.conf["broker_url"], **more)

    def connection_for_read(self, url: str | None = None, **more: Any) -> Any:
        return super().connection_for_read(url or self.conf["broker_url"], **more)

    def connection_for_write(self, url: str | None = None, **more: Any) -> Any:
        return super().connection_for_write(url or self.conf["broker_url"], **more)

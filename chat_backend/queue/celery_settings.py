"""How Celery is set up, on both sides of the broker.

Celery is a doorbell here: the job's row, its lease and its attempt number are the truth. So nothing
below is about not losing messages; it is about failing fast, and about never running out of connections.
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from chat_backend.config import Settings
from chat_backend.queue import names

KEY_PREFIX = "chat:celery:"
CONNECT_TIMEOUT_SECONDS = 2
PRODUCER_TIMEOUT_SECONDS = 2
WORKER_TIMEOUT_SECONDS = 15
PRODUCER_CONNECTIONS = 20
PRODUCER_POOL = 2
# Flower asks the workers from many threads, each holding one pooled connection while it waits for a second:
# with fewer than all of them need, it hangs for good and shows nothing.
FLOWER_POOL = 100
LEAST_CONNECTIONS = 30


def celery_settings(settings: Settings, *, worker: bool) -> dict[str, Any]:
    """Return Celery's settings: for a worker and Flower, or for a process that only rings."""
    shared = _shared(settings)
    return shared | (_worker(settings) if worker else _producer(settings))


def _producer(settings: Settings) -> dict[str, Any]:
    # A request must not wait for a broker.
    return {
        "broker_pool_limit": PRODUCER_POOL,
        "broker_transport_options": _transport(
            settings, timeout_seconds=PRODUCER_TIMEOUT_SECONDS, max_connections=PRODUCER_CONNECTIONS
        ),
    }


def _worker(settings: Settings) -> dict[str, Any]:
    return {
        "broker_pool_limit": FLOWER_POOL,
        # With kombu's default of 10 connections acks fail under load, and jobs come back.
        "broker_transport_options": _transport(
            settings,
            timeout_seconds=WORKER_TIMEOUT_SECONDS,
            max_connections=max(LEAST_CONNECTIONS, 3 * settings.worker_threads),
        ),
        "worker_pool": "threads",
        "worker_concurrency": settings.worker_threads,
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": True,
        # One PUBLISH to its channel can end every worker, or have them consume nothing.
        "worker_enable_remote_control": settings.celery_remote_control,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "task_acks_late": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Otherwise a Redis at its maxmemory ends the worker.
        "broker_channel_error_retry": True,
    }


def _shared(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": settings.broker_url,
        "broker_use_ssl": _tls(settings.broker_url),
        "broker_connection_timeout": CONNECT_TIMEOUT_SECONDS,
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": names.QUEUE,
        "task_publish_retry": False,
        "enable_utc": True,
        "timezone": "UTC",
    }


def _tls(url: str) -> dict[str, Any] | bool:
    """Return how a broker's certificate is verified, for what does not read it from the URL."""
    parts = urlsplit(url)
    if parts.scheme == "amqps":
        # kombu puts the broker's name here; without the key the name in a certificate is not compared.
        return {"server_hostname": None, "cert_reqs": ssl.CERT_REQUIRED}
    if parts.scheme != "rediss":
        return False
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"] == "true"
    return options  # Flower's page of queues reads them here only


def _transport(settings: Settings, *, timeout_seconds: int, max_connections: int) -> dict[str, Any]:
    if urlsplit(settings.broker_url).scheme not in {"redis", "rediss"}:
        return {}
    return {
        "global_keyprefix": KEY_PREFIX,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "max_connections": max_connections,
    }

"""Celery's settings, for both sides."""

from __future__ import annotations

import pytest

from chat_backend.config import Settings
from chat_backend.queue import names
from chat_backend.queue.celery_settings import celery_settings

DEV = {"AUTH_MODE": "dev", "REDIS_URL": "redis://:p@host:6379/0"}


def test_both_sides_agree_on_what_they_must_agree_on() -> None:
    settings = Settings.from_environment(DEV)
    worker, producer = celery_settings(settings, worker=True), celery_settings(settings, worker=False)
    prefixes = {side["broker_transport_options"]["global_keyprefix"] for side in (worker, producer)}

    assert len(prefixes) == 1
    assert worker["task_default_queue"] == producer["task_default_queue"] == names.QUEUE


def test_a_request_waits_less_for_a_frozen_broker_than_a_worker() -> None:
    settings = Settings.from_environment(DEV)

    sides = [celery_settings(settings, worker=worker) for worker in (False, True)]
    waits = [side["broker_transport_options"]["socket_timeout"] for side in sides]

    assert waits == [2, 15]


def test_a_worker_has_connections_for_all_its_acknowledgements() -> None:
    settings = Settings.from_environment(DEV | {"WORKER_CONCURRENCY": "40"})

    worker = celery_settings(settings, worker=True)

    assert (worker["worker_concurrency"], worker["broker_transport_options"]["max_connections"]) == (60, 180)


@pytest.mark.parametrize("side", [True, False])
def test_only_json_comes_in(side: bool) -> None:
    assert celery_settings(Settings.from_environment(DEV), worker=side)["accept_content"] == ["json"]


def test_another_broker_gets_none_of_redis_options() -> None:
    settings = Settings.from_environment(DEV | {"CELERY_BROKER_URL": "amqp://host//"})

    assert celery_settings(settings, worker=True)["broker_transport_options"] == {}

"""The line in which a process's writers wait for the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from chat_backend.bootstrap import WRITERS, Backend, connect
from chat_backend.config import Settings
from chat_backend.domain.errors import Unavailable
from tests.support.waiting import wait_until


@pytest.fixture
def backend(database_url: str) -> Iterator[Backend]:
    backend = connect(Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": database_url}))
    yield backend
    backend.close()


def _hold_all(backend: Backend, stack: ExitStack) -> None:
    for _ in range(1 if backend.settings.is_sqlite else WRITERS):
        stack.enter_context(backend.unit_of_work())


def test_what_is_urgent_goes_before_all_that_wait_to_write(backend: Backend) -> None:
    came: list[str] = []

    def write(name: str, *, urgent: bool) -> None:
        with backend.unit_of_work(urgent=urgent):
            came.append(name)

    with ExitStack() as held:
        _hold_all(backend, held)
        names = ["one", "two", "three", "urgent"]
        threads = [threading.Thread(target=write, args=(n,), kwargs={"urgent": n == "urgent"}) for n in names]
        for thread in threads:
            thread.start()
        wait_until(lambda: came or backend._turns._urgent, why="what is urgent waits, or has not to")
    for thread in threads:
        thread.join(10)

    assert came[0] == "urgent"
    assert sorted(came) == sorted(names)


@pytest.mark.timeout(60)
def test_who_has_waited_too_long_to_write_is_told_so_and_leaves_no_trace(sqlite_url: str) -> None:
    backend = connect(Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": sqlite_url}))
    with ExitStack() as held:
        _hold_all(backend, held)
        with pytest.raises(Unavailable), backend.unit_of_work(urgent=True):
            pass
    with backend.unit_of_work() as uow:
        assert uow.session is not None
    backend.close()

"""gunicorn under our settings: real processes over a small app, with threads and with gevent."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chat_backend.cli.embedded import free_port
from tests.support.processes import Process, answers

GUNICORN = "gunicorn -c python:chat_backend.web.gunicorn_conf"
APP = "tests.support.lingering_app:app"
SQLITE = "sqlite:///never-opened.db"
# Never connected to: only the address decides.
POSTGRESQL = "postgresql://127.0.0.1:1/chat"

Serve = Callable[..., Process]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    started: list[Process] = []

    def serve_over(database_url: str, *options: str, **changes: str) -> Process:
        environ = {"AUTH_MODE": "dev", "DATABASE_URL": database_url, "PORT": str(free_port())} | changes
        process = Process("gunicorn", [*GUNICORN.split(), *options, APP], environ, tmp_path)
        started.append(process)
        return process

    yield serve_over
    for process in started:
        process.kill()


@pytest.mark.parametrize("database_url", [SQLITE, POSTGRESQL])
def test_a_terminated_process_says_goodbye_before_it_goes(serve: Serve, database_url: str) -> None:
    process = serve(database_url)
    process.wait_until_ready(lambda: answers(process.url))
    with urllib.request.urlopen(f"{process.url}/linger", timeout=20) as page:
        greeting = page.readline()

        status = process.stop(seconds=6)

        assert (greeting, page.readline(), status) == (b"hello\n", b"goodbye\n", 0)


@pytest.mark.parametrize(("database_url", "worker"), [(SQLITE, "gthread"), (POSTGRESQL, "gevent")])
def test_the_database_decides_how_requests_run(serve: Serve, database_url: str, worker: str) -> None:
    process = serve(database_url)

    process.wait_until_ready(lambda: answers(process.url))

    assert f"Using worker: {worker}" in process.log


def test_the_log_of_requests_has_no_query_string(serve: Serve) -> None:
    process = serve(SQLITE)
    process.wait_until_ready(lambda: answers(process.url))

    answers(f"{process.url}/page?ticket=very-secret")
    process.stop()

    assert '"GET /page" 200' in process.log
    assert "very-secret" not in process.log


@pytest.mark.parametrize("database_url", [SQLITE, POSTGRESQL])
def test_no_path_can_forge_a_line_of_the_log(serve: Serve, database_url: str) -> None:
    process = serve(database_url)
    process.wait_until_ready(lambda: answers(process.url))

    answers(f"{process.url}/page%0A127.0.0.1%20%22GET%20/forged%22%20200%1B%5B2J%C3%A9%25%5C")
    process.stop()

    lines = [line for line in process.log.splitlines() if "forged" in line]
    assert len(lines) == 1
    assert '"GET /page%0A127.0.0.1%20%22GET%20/forged%22%20200%1B[2J%C3%A9%25%5C" 200' in lines[0]


def test_gevent_over_sqlite_is_refused(serve: Serve) -> None:
    process = serve(SQLITE, "--worker-class", "gevent")

    assert process.wait(20) == 2
    assert "DATABASE_URL is SQLite, which does not work with gunicorn's gevent workers" in process.log


def test_a_wrong_setting_is_one_sentence_and_status_2(serve: Serve) -> None:
    process = serve(SQLITE, PORT="none")

    assert process.wait(20) == 2
    assert process.log == "PORT must be a whole number from 1 to 65535.\n"


def test_more_processes_are_asked_for_by_gunicorns_own_variable(serve: Serve) -> None:
    process = serve(POSTGRESQL, WEB_CONCURRENCY="2")

    process.wait_until_ready(lambda: process.log.count("Booting worker") == 2)


@pytest.mark.parametrize("said", [b"GET /page HTTP/1.0\r\n\r\n", b"nonsense\r\n\r\n", b""])
def test_clients_that_do_not_close_delay_nobody(serve: Serve, said: bytes) -> None:
    process = serve(SQLITE, "--threads", "24")
    process.wait_until_ready(lambda: answers(process.url))
    with ExitStack() as opened:
        for _ in range(60):
            client = opened.enter_context(socket.create_connection(("127.0.0.1", process.port)))
            client.sendall(said)

        with urllib.request.urlopen(f"{process.url}/page", timeout=4) as page:
            assert page.status == 200

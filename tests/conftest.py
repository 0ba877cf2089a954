"""What tests are given: real servers, real processes, fresh databases.

| fixture | gives |
|---|---|
| `valkey` | a running, empty Redis; it may be killed, frozen, restarted |
| `database_url` | a fresh migrated database; the test runs once on SQLite and once on PostgreSQL |
| `sqlite_url`, `postgresql_url` | one of them |
| `environment` | the variables of a deployment over both, with short timings |
| `settings` | the same as Settings |
| `launch` | start a line of the Procfile: `launch("web")`, `launch("worker", LEASE_SECONDS="1")` |
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from chat_backend.config import Settings
from tests.support import processes
from tests.support.databases import POSTGRESQL, SQLITE, Databases
from tests.support.processes import Process
from tests.support.valkey import Valkey

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

Launch = Callable[..., Process]

# Short enough for tests, long enough for a busy machine.
TIMINGS = {
    "LEASE_SECONDS": "3",
    "HEARTBEAT_SECONDS": "0.5",
    "SWEEP_SECONDS": "0.3",
    "FORGOTTEN_SECONDS": "1",
    "DRAIN_SECONDS": "1",
    "CHECKPOINT_SECONDS": "0.1",
    "CATCH_UP_SECONDS": "0.3",
    "TYPING_SECONDS": "1",
    "LLM_CONNECT_TIMEOUT_SECONDS": "2",
    "LLM_FIRST_TOKEN_TIMEOUT_SECONDS": "5",
    "LLM_TOKEN_TIMEOUT_SECONDS": "3",
    "LLM_BACKOFF_BASE_SECONDS": "0.05",
    "LLM_BACKOFF_CAP_SECONDS": "0.2",
    "BREAKER_OPEN_SECONDS": "1",
    # No test loses power.
    "SQLITE_SYNCHRONOUS": "NORMAL",
}


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that all test processes of this run share."""
    workerinput = getattr(config, "workerinput", None)
    folder = workerinput["shared_folder"] if workerinput else tempfile.mkdtemp(prefix="chat-tests-")
    config.stash[SHARED_FOLDER] = Path(folder)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell each of xdist's processes where the shared folder is."""
    node.workerinput["shared_folder"] = str(node.config.stash[SHARED_FOLDER])  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what the run has started, in the process that began it."""
    folder = config.stash.get(SHARED_FOLDER, None)
    if folder and not hasattr(config, "workerinput"):
        Databases(folder).close()
        shutil.rmtree(folder, ignore_errors=True)


SHARED_FOLDER = pytest.StashKey[Path]()


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest) -> Databases:
    """The maker of databases."""
    return Databases(request.config.stash[SHARED_FOLDER])


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def database_url(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[str]:
    """A fresh migrated database; once of each kind."""
    with databases.new(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def sqlite_url(databases: Databases, tmp_path: Path) -> Iterator[str]:
    """A fresh migrated SQLite database."""
    with databases.new(SQLITE, tmp_path) as url:
        yield url


@pytest.fixture
def postgresql_url(databases: Databases, tmp_path: Path) -> Iterator[str]:
    """A fresh migrated PostgreSQL database."""
    with databases.new(POSTGRESQL, tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """The Redis of this test process. Tests take `valkey`."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Iterator[Valkey]:
    """A running, empty Redis."""
    valkey_server.start()
    valkey_server.flush()
    yield valkey_server
    valkey_server.thaw()


@pytest.fixture
def environment(database_url: str, valkey: Valkey) -> dict[str, str]:
    """The variables of a deployment, with short timings."""
    return {"AUTH_MODE": "dev", "DATABASE_URL": database_url, "REDIS_URL": valkey.url, **TIMINGS}


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    """The settings of that deployment."""
    return Settings.from_environment(environment)


@pytest.fixture
def launch(environment: dict[str, str], tmp_path: Path) -> Iterator[Launch]:
    """Start a line of the Procfile over the environment, changed by keywords; all are stopped at the end."""
    started: list[Process] = []

    def launch_one(name: str, **changes: str) -> Process:
        process = processes.start(name, environment | changes, tmp_path)
        started.append(process)
        return process

    yield launch_one
    for process in started:
        process.terminate()
    for process in started:
        process.end()
        # What a thread that serves everyone says when it met what it should have known.
        assert "stumbled" not in process.log, process.log

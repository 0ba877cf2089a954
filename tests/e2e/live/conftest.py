"""One running product for all tests of a module: over SQLite, over PostgreSQL, or the test once on each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TIMINGS
from tests.support.databases import POSTGRESQL, SQLITE, Databases
from tests.support.provider_stub import Stub
from tests.support.stack import Stack, running
from tests.support.valkey import Valkey


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Redis that no other module empties."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def changes() -> dict[str, str]:
    """Settings of a module's own; overridden there."""
    return {}


def _stack(
    kind: str, databases: Databases, valkey: Valkey, folder: Path, stub: Stub, changes: dict[str, str]
) -> Iterator[Stack]:
    valkey.flush()
    with databases.new(kind, folder) as url:
        environ = {"AUTH_MODE": "dev", "DATABASE_URL": url, "REDIS_URL": valkey.url, **TIMINGS, **changes}
        with running(environ, folder, stub) as stack:
            yield stack


@pytest.fixture(scope="module", params=[SQLITE, POSTGRESQL])
def stack(
    request: pytest.FixtureRequest,
    databases: Databases,
    own_valkey: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
    stub_server: Stub,
    changes: dict[str, str],
) -> Iterator[Stack]:
    """A running product on each database: threads on SQLite, greenlets on PostgreSQL."""
    yield from _stack(request.param, databases, own_valkey, tmp_path_factory.mktemp("stack"), stub_server, changes)


@pytest.fixture(scope="module")
def sqlite_stack(
    databases: Databases,
    own_valkey: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
    stub_server: Stub,
    changes: dict[str, str],
) -> Iterator[Stack]:
    """A running product on SQLite alone."""
    yield from _stack(SQLITE, databases, own_valkey, tmp_path_factory.mktemp("stack"), stub_server, changes)


@pytest.fixture(scope="module")
def postgresql_stack(
    databases: Databases,
    own_valkey: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
    stub_server: Stub,
    changes: dict[str, str],
) -> Iterator[Stack]:
    """A running product on PostgreSQL alone."""
    yield from _stack(POSTGRESQL, databases, own_valkey, tmp_path_factory.mktemp("stack"), stub_server, changes)

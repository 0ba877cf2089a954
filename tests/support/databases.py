"""Fresh, migrated databases: migrated once a run, copied for each test."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg

from chat_backend.cli import migrate
from tests.support import postgres

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
TEMPLATE = "migrated"


class Databases:
    """The databases of a test run. Its folder is shared by all test processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def new(self, kind: str, folder: Path) -> Iterator[str]:
        """Give the address of a fresh migrated database; folder is where a file may be put."""
        make = {SQLITE: self._new_sqlite, POSTGRESQL: self._new_postgresql}[kind]
        with make(folder) as url:
            yield url

    @contextmanager
    def _new_sqlite(self, folder: Path) -> Iterator[str]:
        template = self._once("sqlite", self._make_sqlite)
        path = folder / "chat.db"
        shutil.copyfile(template, path)
        yield f"sqlite:///{path}"

    @contextmanager
    def _new_postgresql(self, folder: Path) -> Iterator[str]:
        server = self._once("postgresql", self._make_postgresql)
        name = f"test_{uuid4().hex}"
        _execute(server, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        try:
            yield postgres.database(server, name)
        finally:
            _execute(server, f"DROP DATABASE {name} WITH (FORCE)")

    def empty_postgresql(self) -> str:
        """Return the address of a database without tables; it goes with the run."""
        server = self._once("postgresql", self._make_postgresql)
        name = f"empty_{uuid4().hex}"
        _execute(server, f"CREATE DATABASE {name}")
        return postgres.database(server, name)

    def close(self) -> None:
        """End what the run has started. For the process that made the folder."""
        postgres.stop(self._folder / "pg")

    def _make_sqlite(self) -> str:
        path = self._folder / "migrated.db"
        migrate.upgrade(f"sqlite:///{path}")
        return str(path)

    def _make_postgresql(self) -> str:
        server = postgres.start(self._folder / "pg")
        _execute(server, f"CREATE DATABASE {TEMPLATE}")
        migrate.upgrade(postgres.database(server, TEMPLATE))
        return server

    def _once(self, what: str, make: Callable[[], str]) -> str:
        """Make something once for all test processes, and remember what it is."""
        known = self._folder / f"{what}.made"
        with (self._folder / f"{what}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not known.exists():
                made = make()
                known.write_text(made)
            return known.read_text()


def _execute(server: str, statement: str) -> None:
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statement.encode())

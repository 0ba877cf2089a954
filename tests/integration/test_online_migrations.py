"""Migrations of a running system: readers, writers, interruptions and the way back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, text

from chat_backend.cli import migrate
from chat_backend.config import ConfigError
from migrations.online import ADVISORY_LOCK, MigrationRefused
from tests.support.databases import Databases
from tests.support.waiting import wait_until

SESSION = """
INSERT INTO chat_sessions (id, user_id, title, llm_provider, llm_model, settings, is_active, created_at, updated_at,
                           message_count, last_seq, last_offset, last_message_at)
VALUES (:id, 'alice', 'Kept', :provider, 'm', '{}', true, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, 0, 0, 0,
        CURRENT_TIMESTAMP)
"""
RENAME = "UPDATE chat_sessions SET title = 'Renamed' WHERE user_id = 'alice'"


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def execute(url: str, statement: str, **values: object) -> None:
    with connected(url) as connection, connection.begin():
        connection.execute(text(statement), values)


def add_session(url: str, provider: str = "LOCAL") -> None:
    execute(url, SESSION, id="0" * 31 + "1", provider=provider)


def titles(url: str) -> list[str]:
    with connected(url) as connection:
        return list(connection.scalars(text("SELECT title FROM chat_sessions")))


@contextmanager
def long_reader(url: str) -> Iterator[psycopg.Connection]:
    """Hold what pg_dump holds: a shared lock on every table, for as long as the block runs."""
    with psycopg.connect(url.replace("+psycopg", ""), application_name="pg_dump") as reader:
        for table in ("chat_sessions", "chat_messages", "llm_jobs", "llm_attempts"):
            reader.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE".encode())
        yield reader


@pytest.fixture
def first_schema(databases: Databases) -> str:
    """The address of a PostgreSQL database with the first schema and one session."""
    url = databases.empty_postgresql()
    migrate.upgrade(url, "0001")
    add_session(url)
    return url


def test_writers_pass_while_a_migration_waits_for_a_reader(first_schema: str, caplog: pytest.LogCaptureFixture) -> None:
    failures: list[BaseException] = []

    def upgrade() -> None:
        try:
            migrate.upgrade(first_schema)
        except BaseException as error:  # reported by the test's own thread
            failures.append(error)

    with long_reader(first_schema):
        migration = threading.Thread(target=upgrade)
        migration.start()
        wait_until(lambda: "waiting for a lock" in caplog.text, seconds=20, why="the migration waits")
        with psycopg.connect(first_schema.replace("+psycopg", ""), options="-c lock_timeout=5s") as writer:
            for _ in range(20):
                writer.execute(RENAME.encode())
                writer.commit()
    migration.join(60)

    assert not migration.is_alive()
    assert not failures
    assert "pg_dump" in str([getattr(record, "blockers", "") for record in caplog.records])
    assert ("quota_days", "user_id") in columns(first_schema)


def test_migration_gives_up_and_continues_later(first_schema: str) -> None:
    with long_reader(first_schema), pytest.raises(ConfigError, match=r"stayed locked.*pg_dump"):
        migrate.upgrade(first_schema, give_up_seconds=0.1)

    migrate.upgrade(first_schema)

    assert titles(first_schema) == ["Kept"]


def test_interrupted_migration_is_repeated(first_schema: str) -> None:
    # What is left of a process that died after any statement: the objects are there, the version is the old one.
    migrate.upgrade(first_schema)
    execute(first_schema, "UPDATE alembic_version SET version_num = '0001'")
    # And an index whose concurrent build was cut off.
    execute(
        first_schema,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_llm_jobs_unfinished_of_user'::regclass",
    )

    migrate.upgrade(first_schema)

    with connected(first_schema) as connection:
        assert not list(connection.scalars(text("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid")))
        assert list(connection.scalars(text("SELECT conname FROM pg_constraint WHERE NOT convalidated"))) == []


def test_two_migrations_at_once_take_turns(databases: Databases) -> None:
    url = databases.empty_postgresql()
    with psycopg.connect(url.replace("+psycopg", "")) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (ADVISORY_LOCK,))

        with pytest.raises(ConfigError, match="Another process is migrating"):
            migrate.upgrade(url, give_up_seconds=0.1)


def test_old_release_works_with_every_newer_schema(databases: Databases) -> None:
    """Each migration only adds, and what it adds to a table that exists may be left out by the old release."""
    url = databases.empty_postgresql()
    migrate.upgrade(url, "0001")
    before = columns(url)

    migrate.upgrade(url)

    after = columns(url)
    assert before.keys() <= after.keys()
    required = {
        name for name, optional in after.items() if name not in before and name[0] in tables(before) and not optional
    }
    assert required == set()


def columns(url: str) -> dict[tuple[str, str], bool]:
    """Return every column, and whether an INSERT may leave it out."""
    query = (
        "SELECT table_name, column_name, is_nullable = 'YES' OR column_default IS NOT NULL "
        "FROM information_schema.columns WHERE table_schema = 'public'"
    )
    with connected(url) as connection:
        return {(row[0], row[1]): row[2] for row in connection.execute(text(query))}


def tables(known: dict[tuple[str, str], bool]) -> set[str]:
    return {table for table, _ in known}


@pytest.mark.parametrize("provider", ["LOCAL", "OPENAI"])
def test_downgrade_refuses_to_delete_user_data(database_url: str, provider: str) -> None:
    add_session(database_url, provider)

    with pytest.raises(MigrationRefused, match="would delete"):
        migrate.downgrade(database_url)

    assert titles(database_url) == ["Kept"]

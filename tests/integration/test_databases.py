"""Migrations, and what errors say, on both databases."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from chat_backend.bootstrap import connect
from chat_backend.cli import migrate
from chat_backend.config import ConfigError, Settings
from chat_backend.domain.errors import Unavailable
from tests.support.databases import Databases


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    found = set(inspect(engine).get_table_names()) - {"alembic_version"}
    engine.dispose()
    return found


def test_a_migrated_database_has_the_tables(database_url: str) -> None:
    assert {"chat_sessions", "chat_messages", "llm_jobs"} <= tables(database_url)


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    before = tables(database_url)

    migrate.upgrade(database_url)

    assert tables(database_url) == before


def test_migrations_can_be_taken_back_and_done_again(database_url: str) -> None:
    before = tables(database_url)

    migrate.downgrade(database_url)
    after_downgrade = tables(database_url)
    migrate.upgrade(database_url)

    assert (after_downgrade, tables(database_url)) == (set(), before)


def test_an_empty_postgresql_is_migrated(databases: Databases) -> None:
    url = databases.empty_postgresql()

    migrate.upgrade(url)

    assert "chat_messages" in tables(url)


def test_a_sqlite_file_is_made_with_its_folder(tmp_path: Path) -> None:
    migrate.upgrade(f"sqlite:///{tmp_path}/deep/down/chat.db")

    assert "chat_messages" in tables(f"sqlite:///{tmp_path}/deep/down/chat.db")


def test_an_unreachable_database_is_a_sentence_without_the_password() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL can't be used") as caught:
        migrate.upgrade("postgresql+psycopg://someone:hidden@127.0.0.1:1/chat")

    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_without_tables_is_unavailable_and_the_log_says_what_to_do(
    databases: Databases, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    url = f"sqlite:///{tmp_path}/chat.db" if kind == "sqlite" else databases.empty_postgresql()
    backend = connect(Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": url}))

    with pytest.raises(Unavailable), backend.reading() as session:
        session.execute(text("SELECT id FROM chat_sessions"))
    backend.close()

    assert "the database has no tables yet: `chat-backend migrate` makes them" in caplog.text


def test_what_people_have_written_is_in_no_error_of_the_database(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = connect(Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": database_url}))
    written = {"user_id": "canary" + "-prompt", "day": "2026-01-01"}
    impossible = text("INSERT INTO quota_days VALUES (:user_id, :day, -1, -1)")

    for statement in (impossible, text("SELECT canary_column FROM quota_days WHERE user_id = :user_id OR day = :day")):
        try:
            with backend.unit_of_work() as uow:
                uow.session.execute(statement, written)
        except Exception:
            logging.getLogger("chat.test").exception("it failed")
    backend.close()

    assert "canary-prompt" not in caplog.text
    assert "DatabaseFault: CheckViolation (23514)" in caplog.text or "SQLITE_CONSTRAINT_CHECK" in caplog.text
    assert "unit_of_work" in caplog.text

"""How Alembic reaches the database."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine

from chat_backend.config import Settings
from chat_backend.models import Base
from chat_backend.models.base import UtcDateTime
from migrations.online import GIVE_UP_SECONDS, online


def _render(kind: str, item: Any, autogen: Any) -> str | bool:
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        render_item=_render,
        compare_type=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run() -> None:
    """Migrate over a given connection, or to the address given, or to the one of the settings."""
    attributes = context.config.attributes
    given = attributes.get("connection")
    if given is not None:
        _migrate(given)
        return
    engine = create_engine(attributes.get("database_url") or Settings.from_environment().database_url)
    seconds = attributes.get("give_up_seconds", GIVE_UP_SECONDS)
    try:
        with engine.connect() as connection, online(connection, give_up_seconds=seconds) as prepared:
            _migrate(prepared)
    finally:
        engine.dispose()


run()

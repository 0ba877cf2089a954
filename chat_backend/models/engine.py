"""How each database is spoken to: pragmas, time limits, and how transactions begin."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Dialect, Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InvalidatePoolError

from chat_backend.domain.strict_json import read_stored
from chat_backend.domain.text import fold

BUSY_SECONDS = 5
STATEMENT_SECONDS = 15
LOCK_SECONDS = 5
IDLE_SECONDS = 30
POOL_WAIT_SECONDS = 5
# A connection that was used a moment ago is there: to ask it before every transaction would cost a round trip each.
TRUSTED_SECONDS = 1.0
# The second time that a connection executes a statement, it is prepared.
PREPARED_AFTER = 1


def engine_options(url: str, *, pool_size: int) -> dict[str, Any]:
    """Return what the engine for a database address needs."""
    options: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": POOL_WAIT_SECONDS,
        "pool_use_lifo": True,
        # They are what people have written, and every error would carry them into the log.
        "hide_parameters": True,
        "json_deserializer": read_stored,
    }
    if url.startswith("sqlite"):
        return options | {"connect_args": {"timeout": BUSY_SECONDS, "check_same_thread": False}}
    limits = (
        f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout={LOCK_SECONDS}s "
        f"-c idle_in_transaction_session_timeout={IDLE_SECONDS}s -c timezone=UTC "
        "-c jit=off"
    )
    keepalive = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    return options | {
        "pool_recycle": 1800,
        "connect_args": {"connect_timeout": 5, "options": limits, "prepare_threshold": PREPARED_AFTER, **keepalive},
    }


def prepare(engine: Engine, *, synchronous: str = "FULL") -> None:
    """Set up an engine once: SQLite's pragmas, folder, and transactions that begin when told to."""
    if engine.dialect.name != "sqlite":
        # Several rows in one statement, not in as many.
        engine.dialect.use_insertmanyvalues_wo_returning = True
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", partial(_look_whether_it_lives, engine.dialect))
        return
    path = make_url(str(engine.url)).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    event.listen(engine, "connect", partial(_configure_sqlite, synchronous))
    event.listen(engine, "begin", _begin_sqlite)


def _note_use(connection: Any, record: Any) -> None:
    record.info["used_at"] = time.monotonic()


def _look_whether_it_lives(dialect: Dialect, connection: Any, record: Any, proxy: Any) -> None:
    used_at = record.info.get("used_at")
    if used_at is None or time.monotonic() - used_at < TRUSTED_SECONDS:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error  # the pool opens others


def _configure_sqlite(synchronous: str, connection: Any, record: Any) -> None:
    # None: the driver begins nothing by itself; _begin_sqlite does.
    connection.isolation_level = None
    modes = ("journal_mode=WAL", f"synchronous={synchronous}")
    for pragma in (*modes, "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}").close()
    connection.create_function("fold", 1, _fold, deterministic=True)


def _fold(text: str | None) -> str | None:
    return None if text is None else fold(text)


def _begin_sqlite(connection: Any) -> None:
    # A transaction that reads first and then writes fails at once when another has written between,
    # whatever the timeout: so who means to write says so at the start.
    mode = "IMMEDIATE" if connection.get_execution_options().get("writes") else "DEFERRED"
    connection.exec_driver_sql(f"BEGIN {mode}")

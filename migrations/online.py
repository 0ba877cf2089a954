"""Schema changes that a running system survives.

On PostgreSQL every statement of a migration is a transaction of its own, waits only briefly for its locks and is
retried; indexes are built CONCURRENTLY and constraints are validated after they are added. A migration that was
interrupted is run again from its beginning, so each statement is repeatable. SQLite has no online schema changes:
there a migration is one transaction, as Alembic makes it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from alembic import op
from alembic.ddl.postgresql import PostgresqlImpl
from sqlalchemy import CheckConstraint, Connection, ForeignKeyConstraint, Row, Table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import Column, Constraint, DropConstraint, Index

log = logging.getLogger(__name__)

# While a statement waits for ACCESS EXCLUSIVE, every later query on the table waits behind it: so briefly.
SET_LOCK_TIMEOUT = "SET lock_timeout = '1s'"
# Then it lets them pass, and tries again for as long as a long reader (pg_dump) may take.
GIVE_UP_SECONDS = 900.0
PAUSE_SECONDS = 2.0
# Any number that no other program of the database uses.
ADVISORY_LOCK = 0x6368_6174_5F64_6273
LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED = "55P03", "40P01"

_BLOCKERS = text(
    "SELECT pid, application_name, state, round(extract(epoch FROM clock_timestamp() - xact_start)) AS seconds "
    "FROM pg_stat_activity WHERE xact_start < clock_timestamp() - interval '1 second' AND pid <> pg_backend_pid() "
    "ORDER BY xact_start LIMIT 3"
)


class MigrationRefused(Exception):
    """A migration that would lose data, or that got no lock in time; nothing of it is half done."""


@contextmanager
def online(connection: Connection, *, give_up_seconds: float = GIVE_UP_SECONDS) -> Iterator[Connection]:
    """Yield the connection, prepared for schema changes, while no other process migrates this database.

    Raises MigrationRefused if another process migrates for longer than `give_up_seconds`.
    """
    if connection.dialect.name != "postgresql":
        yield connection
        return
    connection = connection.execution_options(isolation_level="AUTOCOMMIT", give_up_seconds=give_up_seconds)
    for setting in ("SET statement_timeout = 0", SET_LOCK_TIMEOUT):
        connection.execute(text(setting))
    deadline = time.monotonic() + give_up_seconds
    # By polling: CREATE INDEX CONCURRENTLY waits for every transaction, one that waits for this lock included.
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": ADVISORY_LOCK}):
        if time.monotonic() > deadline:
            raise MigrationRefused("Another process is migrating this database and does not finish.")
        time.sleep(PAUSE_SECONDS / 4)
    try:
        yield connection
    finally:
        if not connection.closed and not connection.invalidated:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})


def refuse_to_lose(what: str, query: str) -> None:
    """Stop a downgrade that would delete data: raise MigrationRefused if the query returns a row."""
    if op.get_bind().execute(text(query)).first():
        raise MigrationRefused(
            f"This downgrade would delete {what}. Delete or export them first, or restore a backup instead."
        )


class OnlinePostgresql(PostgresqlImpl):
    """Alembic's operations on PostgreSQL, made safe while the old release still runs."""

    __dialect__ = "postgresql"

    def _exec(
        self,
        construct: Any,
        execution_options: Mapping[str, Any] | None = None,
        multiparams: Sequence[Mapping[str, Any]] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Execute one statement; try again while it can't have its locks. Raises MigrationRefused in the end."""
        connection = self.connection
        assert connection is not None
        deadline = time.monotonic() + self._give_up_seconds()
        while True:
            try:
                return super()._exec(construct, execution_options, multiparams, params or {})
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in (LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED):
                    raise
                blockers = ", ".join(map(_described, connection.execute(_BLOCKERS)))
                if time.monotonic() > deadline:
                    raise MigrationRefused(
                        f"A table stayed locked. The oldest transactions: {blockers or 'none'}. "
                        "End them and migrate again: what was done is kept."
                    ) from error
                log.warning("waiting for a lock", extra={"action": "migrate", "blockers": blockers})
                time.sleep(PAUSE_SECONDS)

    def add_column(self, table_name: str, column: Column[Any], **kw: Any) -> None:
        super().add_column(table_name, column, **kw | {"if_not_exists": True})

    def drop_column(self, table_name: str, column: Column[Any], **kw: Any) -> None:
        super().drop_column(table_name, column, **kw | {"if_exists": True})

    def create_table(self, table: Table, **kw: Any) -> None:
        super().create_table(table, **kw | {"if_not_exists": True})

    def add_constraint(self, const: Any, **kw: Any) -> None:
        """Add a constraint without a scan under the strongest lock, then validate it under a weak one."""
        self.drop_constraint(const)
        if not isinstance(const, CheckConstraint | ForeignKeyConstraint):
            super().add_constraint(const, **kw)
            return
        const.dialect_options["postgresql"]["not_valid"] = True
        super().add_constraint(const, **kw)
        quote = self.dialect.identifier_preparer.format_constraint
        table = self.dialect.identifier_preparer.format_table(const.table)
        self._exec(f"ALTER TABLE {table} VALIDATE CONSTRAINT {quote(const)}")

    def drop_constraint(self, const: Constraint, **kw: Any) -> None:
        self._exec(DropConstraint(const, if_exists=True, **kw))

    def create_index(self, index: Index, **kw: Any) -> None:
        """Build an index without stopping writes. An interrupted build leaves an invalid one, which is built again."""
        assert self.connection is not None
        if self._is_invalid(index):
            self.drop_index(index)
        index.dialect_options["postgresql"]["concurrently"] = True
        with self._patient():
            super().create_index(index, **kw | {"if_not_exists": True})
        if self._is_invalid(index):
            raise MigrationRefused(f"The index {index.name} could not be built. Migrate again.")

    def drop_index(self, index: Index, **kw: Any) -> None:
        index.dialect_options["postgresql"]["concurrently"] = True
        with self._patient():
            super().drop_index(index, **kw | {"if_exists": True})

    def _is_invalid(self, index: Index) -> bool:
        assert self.connection is not None
        query = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid"
        return self.connection.scalar(text(query), {"name": index.name}) is not None

    @contextmanager
    def _patient(self) -> Iterator[None]:
        """Wait for old transactions in one go: statements that run CONCURRENTLY stop nobody while they wait."""
        assert self.connection is not None
        self.connection.execute(text(f"SET lock_timeout = '{self._give_up_seconds()}s'"))
        try:
            yield
        finally:
            self.connection.execute(text(SET_LOCK_TIMEOUT))

    def _give_up_seconds(self) -> float:
        assert self.connection is not None
        seconds: float = self.connection.get_execution_options().get("give_up_seconds", GIVE_UP_SECONDS)
        return seconds


def _described(transaction: Row[Any]) -> str:
    program = transaction.application_name or "unnamed"
    return f"pid {transaction.pid} ({program}, {transaction.state}, {transaction.seconds} s)"

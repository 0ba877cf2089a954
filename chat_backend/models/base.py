"""What every table shares: the base class, times, ids and the database's own clock."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast
from uuid import UUID

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import JSON, BigInteger, DateTime, Double, MetaData, String, Uuid, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, registry
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator
from uuid_utils.compat import uuid7

NAMES = {
    "ix": "idx_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "check_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite, which knows no zones, stores it bare."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class EnumText(TypeDecorator[Any]):
    """An enum, stored as its text. A text that is no member is read as it is: a newer release may have written it.

    Only members are written.
    """

    impl = String
    cache_ok = True

    def __init__(self, enum: type[StrEnum], length: int = 20) -> None:
        super().__init__(length)
        self.enum = enum

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else self.enum(value).value

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        if value is None:
            return None
        # Not enum(value) with an except clause, which takes ten times as long for each unknown value.
        return cast(str, self.enum._value2member_map_.get(value, value))


class Base(DeclarativeBase):
    """Base of all models."""

    registry = registry(
        metadata=MetaData(naming_convention=NAMES),
        type_annotation_map={
            datetime: UtcDateTime(),
            UUID: Uuid(),
            dict[str, Any]: JSON(none_as_null=True),
            float: Double(),
        },
    )


db = SQLAlchemy(metadata=Base.registry.metadata, disable_autonaming=True)


class database_clock(FunctionElement[float]):
    """Seconds since 1970 by the database's clock, the only one that leases go by."""

    type = Double()
    inherit_cache = True


@compiles(database_clock, "postgresql")
def _postgresql_clock(element: Any, compiler: Any, **more: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


@compiles(database_clock, "sqlite")
def _sqlite_clock(element: Any, compiler: Any, **more: Any) -> str:
    # unixepoch('subsec') is silently NULL before SQLite 3.42.
    return "((julianday('now') - 2440587.5) * 86400.0)"


class byte_length(FunctionElement[int]):
    """Bytes of a text or JSON column as stored, in UTF-8. PostgreSQL answers without reading a long text."""

    type = BigInteger()
    inherit_cache = True


@compiles(byte_length, "postgresql")
def _postgresql_byte_length(element: Any, compiler: Any, **more: Any) -> str:
    return f"octet_length(({compiler.process(element.clauses, **more)})::text)"


@compiles(byte_length, "sqlite")
def _sqlite_byte_length(element: Any, compiler: Any, **more: Any) -> str:
    # octet_length() is new in SQLite 3.43.
    return f"length(CAST({compiler.process(element.clauses, **more)} AS BLOB))"


class database_now(FunctionElement[datetime]):
    """The time by the database's clock, so many seconds later: for what decides over times that others wrote."""

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(literal(seconds, Double()))


@compiles(database_now, "postgresql")
def _postgresql_now(element: Any, compiler: Any, **more: Any) -> str:
    # Not clock_timestamp(): conditions on a volatile function use no index.
    return f"(statement_timestamp() + make_interval(secs => {compiler.process(element.clauses, **more)}))"


@compiles(database_now, "sqlite")
def _sqlite_now(element: Any, compiler: Any, **more: Any) -> str:
    # As SQLAlchemy writes times, of which SQLite's clock knows milliseconds.
    seconds = compiler.process(element.clauses, **more)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {seconds} || ' seconds')"


def now() -> datetime:
    """Return the time in UTC by this machine's clock: for what is shown, and decides nothing."""
    return datetime.now(UTC)


def new_id() -> UUID:
    """Return a new id; ids made later sort later."""
    return uuid7()


def time_of(made: UUID) -> datetime:
    """Return when an id was made, to the millisecond."""
    return datetime.fromtimestamp((made.int >> 80) / 1000, UTC)

"""What web and worker share: the database, Redis, and the two ways out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from flask import Flask
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from chat_backend.config import Settings
from chat_backend.domain.errors import Unavailable
from chat_backend.models import db
from chat_backend.models.engine import BUSY_SECONDS, LOCK_SECONDS, engine_options, prepare
from chat_backend.protocol.envelope import Envelope
from chat_backend.queue.enqueue import Doorbell
from chat_backend.realtime.publisher import Publisher
from chat_backend.row_locks import LockQueues, LockWaits
from chat_backend.unit_of_work import Outbound, UnitOfWork

log = logging.getLogger(__name__)

POOL_SIZE = 20
WRITERS = 4
WRITER_PATIENCE_SECONDS = 25.0
# PostgreSQL, in words that its driver does not call operational: read-only after a failover, a transaction that
# idled too long, shutting down, no tables yet.
NO_TABLE = "42P01"
PASSING_STATES = frozenset({"25006", "25P03", "57P01", "57P02", "57P03", NO_TABLE})


class DatabaseFault(Exception):
    """A statement that can't be: our mistake, which no waiting mends.

    What the database said of it is not in here: it quotes the rows, and so what people have written.
    """

    def __init__(self, error: DBAPIError) -> None:
        super().__init__(_kind(error))


class Ways:
    """The two ways out of a unit of work: Redis for who watches, the queue for who works."""

    def __init__(self, publisher: Publisher, doorbell: Doorbell) -> None:
        self.publisher = publisher
        self.doorbell = doorbell

    def publish(self, envelopes: list[tuple[UUID, Envelope]]) -> None:
        self.publisher.publish(envelopes)

    def wake(self, job_ids: list[UUID]) -> None:
        for job_id in job_ids:
            self.doorbell.ring(job_id)

    def cancel(self, job_ids: list[UUID]) -> None:
        self.publisher.cancel(job_ids)

    def close(self) -> None:
        self.doorbell.close()


@dataclass
class Backend:
    """A process's share of the outside world."""

    settings: Settings
    engine: Engine
    out: Outbound

    def __post_init__(self) -> None:
        self._reading = sessionmaker(self.engine, autoflush=False, expire_on_commit=False)
        self._writing = sessionmaker(
            self.engine.execution_options(writes=True), autoflush=False, expire_on_commit=False
        )
        # SQLite has one writer at a time and its waiting is by polling: within a process, take turns. With PostgreSQL
        # a few at a time, so that under load who waits holds no connection and who writes is soon done.
        sqlite = self.engine.dialect.name == "sqlite"
        self._turns = _Turns(1, BUSY_SECONDS) if sqlite else _Turns(WRITERS, WRITER_PATIENCE_SECONDS, urgent_places=1)
        pool_size = self.settings.database_pool_size or POOL_SIZE
        # SQLite has no row locks. Else at most a quarter of the connections wait for some.
        self._locks = None if sqlite else LockQueues(seconds=LOCK_SECONDS, connections=max(1, pool_size // 4))

    @contextmanager
    def unit_of_work(self, *, urgent: bool = False) -> Iterator[UnitOfWork]:
        """Open a transaction that writes; after it has committed, publish what it has gathered.

        Urgent transactions bypass the writer limit. Raises Unavailable if the database can't be used.
        """
        with self._turns.take(urgent=urgent) as place, _translated(), self._lock_waits(place) as session:
            uow = UnitOfWork(session, self.settings.max_storage_bytes_per_user)
            yield uow
            uow.write_down()
            session.commit()
        try:
            uow.tell_the_world(self.out)
        except Exception:  # what committed has happened: nothing after it may fail the caller
            log.exception("could not tell the world", extra={"action": "tell"})

    @contextmanager
    def _lock_waits(self, place: _Place) -> Iterator[Session]:
        """Open a session that can wait for row locks. What was not committed is rolled back."""
        session = self._writing()
        waits = LockWaits(self._locks, session, place) if self._locks else None
        try:
            yield session
        finally:
            session.close()
            if waits:
                waits.leave()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a transaction that only reads. Raises Unavailable when the database can't be used."""
        with _translated(), self._reading() as session:
            yield session

    def close(self) -> None:
        """Let the last wake-ups go out and give the connections back; bounded."""
        self.out.close()
        self.engine.dispose()


class _Turns:
    """So many at a time; who has waited for too long is told that the database can't be used.

    What is urgent goes before all that wait, and has places of its own where there can be any.
    """

    def __init__(self, places: int, patience_seconds: float, *, urgent_places: int = 0) -> None:
        self._free = places
        self._kept = urgent_places
        self._patience_seconds = patience_seconds
        self._urgent = 0
        self._freed = threading.Condition(threading.Lock())

    @contextmanager
    def take(self, *, urgent: bool = False) -> Iterator[_Place]:
        place = _Place(self)
        place.take(urgent=urgent)
        try:
            yield place
        finally:
            place.give_back()

    def acquire(self, *, urgent: bool, wait: bool = True) -> None:
        """Take a place; if it may not wait, even where none is free. Raises Unavailable if none is free in time."""
        with self._freed:
            if not wait:
                self._free -= 1
                return
            if not (self._wait_urgently() if urgent else self._wait()):
                raise _unavailable()
            self._free -= 1

    def release(self) -> None:
        """Give a place back."""
        with self._freed:
            self._free += 1
            # A waiter that is woken leaves the place to an urgent one: then all have to be woken.
            self._freed.notify_all() if self._urgent else self._freed.notify()

    def _wait(self) -> bool:
        return self._freed.wait_for(lambda: self._free > 0 and not self._urgent, self._patience_seconds)

    def _wait_urgently(self) -> bool:
        self._urgent += 1
        try:
            return self._freed.wait_for(lambda: self._free > -self._kept, self._patience_seconds)
        finally:
            self._urgent -= 1
            self._freed.notify()


class _Place:
    """The place of one unit of work."""

    def __init__(self, turns: _Turns) -> None:
        self._turns = turns
        self._is_held = False

    def take(self, *, urgent: bool, wait: bool = True) -> None:
        self._turns.acquire(urgent=urgent, wait=wait)
        self._is_held = True

    def give_back(self) -> None:
        if self._is_held:
            self._is_held = False
            self._turns.release()

    @contextmanager
    def given_back(self) -> Iterator[None]:
        """Give the place back, then take one again; not after an error, for then the unit of work ends."""
        self.give_back()
        yield
        # At once, even if none is free: it holds the lock now, and those who hold places may wait for that.
        self.take(urgent=True, wait=False)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        _warn(error)
        raise _unavailable() from error
    except DBAPIError as error:
        if error.connection_invalidated or getattr(error.orig, "sqlstate", None) in PASSING_STATES:
            _warn(error)
            raise _unavailable() from error
        raise DatabaseFault(error).with_traceback(error.__traceback__) from None


def _warn(error: DBAPIError | PoolTimeout) -> None:
    kind = _kind(error) if isinstance(error, DBAPIError) else type(error).__name__
    what = "database unavailable"
    if isinstance(error, DBAPIError) and _lacks_tables(error):
        what = "the database has no tables yet: `chat-backend migrate` makes them"
    log.warning(what, extra={"action": "database", "error": kind})


def _kind(error: DBAPIError) -> str:
    """Return what may be logged of an error: it quotes the rows, and so what people have written."""
    name = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None)
    return f"{type(error.orig).__name__} ({name})"


def _lacks_tables(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == NO_TABLE or str(error.orig).startswith("no such table")


def _unavailable() -> Unavailable:
    return Unavailable("The database can't be used right now.", retry_after_seconds=2)


def flask_app(settings: Settings, name: str = "chat_backend") -> Flask:
    """Return a Flask app that knows the database, and nothing else."""
    app = Flask(name, static_folder=None)
    app.config["SQLALCHEMY_DATABASE_URI"] = _absolute(settings.database_url)
    pool_size = settings.database_pool_size or POOL_SIZE
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(settings.database_url, pool_size=pool_size)
    db.init_app(app)
    return app


def _absolute(url: str) -> str:
    # Flask-SQLAlchemy would put a relative SQLite file into a folder of Flask's; we mean the working directory.
    path = url.removeprefix("sqlite:///")
    if path in (url, "", ":memory:") or Path(path).is_absolute():
        return url
    return f"sqlite:///{Path(path).absolute()}"


def connect(settings: Settings, app: Flask | None = None) -> Backend:
    """Return this process's share of the outside world; nothing is contacted yet."""
    app = app or flask_app(settings)
    with app.app_context():
        engine = db.engine
    prepare(engine, synchronous=settings.sqlite_synchronous)
    return Backend(settings, engine, Ways(Publisher(settings), Doorbell(settings)))

"""PostgreSQL's row locks: what is decided after a wait, and what a wait leaves to others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, text

from chat_backend.bootstrap import WRITERS, connect
from chat_backend.config import Settings
from chat_backend.domain.errors import Forbidden, NotFound, Unavailable
from chat_backend.domain.quota import Quota
from chat_backend.domain.user import User
from chat_backend.models.engine import LOCK_SECONDS
from chat_backend.services import chat_sessions, llm_jobs, messages, participants, tickets
from chat_backend.services.idempotency import Intent
from chat_backend.unit_of_work import UnitOfWork
from tests.integration.services.conftest import Remembered, World
from tests.support.waiting import wait_until

OWNER, MEMBER, STRANGER = User("alice"), User("mem"), User("stranger")
FIELDS: dict[str, Any] = {"llm_provider": "LOCAL", "llm_model": "m", "title": None, "settings": {}}


@pytest.fixture
def world(postgresql_url: str) -> Iterator[World]:
    backend = connect(Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": postgresql_url}))
    backend.out.close()
    out = backend.out = Remembered()
    yield World(backend, out)
    backend.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(60) as pool:
        yield pool


@pytest.fixture
def outsider(postgresql_url: str) -> Iterator[Engine]:
    """Connections of another process."""
    engine = create_engine(postgresql_url)
    yield engine
    engine.dispose()


@contextmanager
def locked(outsider: Engine, session_id: UUID) -> Iterator[None]:
    """Hold a chat session's row, as a transaction that hangs does."""
    with outsider.begin() as connection:
        connection.execute(text("SELECT 1 FROM chat_sessions WHERE id = :id FOR UPDATE"), {"id": session_id})
        yield


def waiting_for_locks(outsider: Engine) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with outsider.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


@dataclass
class Place:
    """A chat session of the owner's with a member, a finished reply and a running job."""

    session_id: UUID
    message_id: UUID
    reply_id: UUID
    job_id: UUID


def furnish(world: World, role: str = "member") -> Place:
    session_id = world.new_session()
    admit(world, session_id, role)
    reply_id = world.answer(session_id, "One", "An answer.").assistant_message_id
    with world.backend.unit_of_work() as uow:
        message = messages.send(uow, session_id, OWNER, content="Two").message
    return Place(session_id, message.id, reply_id, world.ask(session_id, "Three").id)


def admit(world: World, session_id: UUID, role: str) -> None:
    with world.backend.unit_of_work() as uow:
        participants.admit(uow, session_id, OWNER, user_id=MEMBER.id, role=role, most=9)


Entry = Callable[[UnitOfWork, Place, User], Any]
ENTRIES: dict[str, Entry] = {
    "send": lambda uow, at, user: messages.send(uow, at.session_id, user, content="x"),
    "send and ask": lambda uow, at, user: messages.send(uow, at.session_id, user, content="x", process=True),
    "change a message": lambda uow, at, user: messages.change(uow, at.message_id, user, content="x"),
    "ask": lambda uow, at, user: llm_jobs.request(uow, at.session_id, user, prompt="x"),
    "regenerate": lambda uow, at, user: llm_jobs.regenerate(uow, at.reply_id, user),
    "cancel": lambda uow, at, user: llm_jobs.cancel(uow, at.job_id, user),
    "ticket": lambda uow, at, user: tickets.issue(uow, at.session_id, user, seconds=30),
    "leave": lambda uow, at, user: participants.dismiss(uow, at.session_id, user, user.id),
    "admit": lambda uow, at, user: participants.admit(uow, at.session_id, user, user_id="other", role="viewer", most=9),
    "change the session": lambda uow, at, user: chat_sessions.change(uow, at.session_id, user, title="x"),
    "delete": lambda uow, at, user: chat_sessions.remove(uow, at.session_id, user),
}
READ_ONLY = ("ticket", "leave")


def raced(world: World, pool: ThreadPoolExecutor, outsider: Engine, enter: Entry, at: Place, change: Entry) -> None:
    """Let the member enter while a transaction that changes its role holds the lock, and then commits."""

    def act() -> None:
        with world.backend.unit_of_work() as uow:
            enter(uow, at, MEMBER)

    with world.backend.unit_of_work() as uow:
        change(uow, at, OWNER)
        uow.session.flush()
        entry = pool.submit(act)
        wait_until(lambda: waiting_for_locks(outsider) or _queued(world, at), why="the member waits for the lock")
    entry.result(20)


def _queued(world: World, at: Place) -> bool:
    """Whether someone waits behind the holder of this process."""
    queues = getattr(world.backend, "_locks", None)
    return queues is not None and len(queues._queues.get(at.session_id, ())) > 1


def remove_member(uow: UnitOfWork, at: Place, owner: User) -> None:
    participants.dismiss(uow, at.session_id, owner, MEMBER.id)


def demote_member(uow: UnitOfWork, at: Place, owner: User) -> None:
    participants.admit(uow, at.session_id, owner, user_id=MEMBER.id, role="viewer", most=9)


def delete_session(uow: UnitOfWork, at: Place, owner: User) -> None:
    chat_sessions.remove(uow, at.session_id, owner)


@pytest.mark.parametrize("entry", ENTRIES)
def test_removal_during_the_wait_is_seen(world: World, pool: ThreadPoolExecutor, outsider: Engine, entry: str) -> None:
    with pytest.raises(NotFound):
        raced(world, pool, outsider, ENTRIES[entry], furnish(world), remove_member)


@pytest.mark.parametrize("entry", [name for name in ENTRIES if name not in READ_ONLY])
def test_demotion_during_the_wait_is_seen(world: World, pool: ThreadPoolExecutor, outsider: Engine, entry: str) -> None:
    with pytest.raises(Forbidden):
        raced(world, pool, outsider, ENTRIES[entry], furnish(world), demote_member)


@pytest.mark.parametrize("entry", ENTRIES)
def test_deletion_during_the_wait_is_seen(world: World, pool: ThreadPoolExecutor, outsider: Engine, entry: str) -> None:
    with pytest.raises(NotFound):
        raced(world, pool, outsider, ENTRIES[entry], furnish(world), delete_session)


def test_removal_by_another_process_is_seen(world: World, pool: ThreadPoolExecutor, outsider: Engine) -> None:
    at = furnish(world)

    with outsider.begin() as connection:
        which = {"id": at.session_id, "user": MEMBER.id}
        connection.execute(text("SELECT 1 FROM chat_sessions WHERE id = :id FOR UPDATE"), which)
        connection.execute(text("DELETE FROM chat_participants WHERE session_id = :id AND user_id = :user"), which)
        sent = pool.submit(act, world, ENTRIES["send"], at, MEMBER)
        wait_until(lambda: waiting_for_locks(outsider), why="the member waits for the lock")
        connection.commit()

    with pytest.raises(NotFound):
        sent.result(20)


def act(world: World, entry: Entry, at: Place, user: User) -> None:
    with world.backend.unit_of_work() as uow:
        entry(uow, at, user)


def test_stranger_neither_waits_nor_locks(world: World, pool: ThreadPoolExecutor, outsider: Engine) -> None:
    at = furnish(world)

    with locked(outsider, at.session_id):
        for entry in ENTRIES.values():
            with pytest.raises(NotFound):
                pool.submit(act, world, entry, at, STRANGER).result(3)


def test_stuck_session_stalls_only_itself(world: World, pool: ThreadPoolExecutor, outsider: Engine) -> None:
    stuck, other = furnish(world), furnish(world)

    with locked(outsider, stuck.session_id):
        waiting = [pool.submit(act, world, ENTRIES["send"], stuck, OWNER) for _ in range(4 * WRITERS)]
        wait_until(lambda: waiting_for_locks(outsider), why="the first waits for the lock")
        for _ in range(3):
            pool.submit(act, world, ENTRIES["send"], other, OWNER).result(LOCK_SECONDS / 2)
        with world.backend.reading() as session:
            assert session.scalar(text("SELECT 1")) == 1
        assert waiting_for_locks(outsider) == 1
        assert not any(future.done() for future in waiting)
        assert all(is_unavailable(future) for future in waiting)

    act(world, ENTRIES["send"], stuck, OWNER)


def is_unavailable(future: Future[None]) -> bool:
    error = future.exception(4 * LOCK_SECONDS)
    return isinstance(error, Unavailable) and bool(error.retry_after_seconds)


def test_many_stuck_sessions_leave_connections_to_others(
    world: World, pool: ThreadPoolExecutor, outsider: Engine
) -> None:
    stuck, other = [world.new_session() for _ in range(30)], furnish(world)
    # Not stuck: a wait that ends soon must not need one of the connections that wait.
    contended = furnish(world)

    with outsider.begin() as connection:
        connection.execute(text("SELECT 1 FROM chat_sessions WHERE id = ANY(:ids) FOR UPDATE"), {"ids": stuck})
        waiting = [pool.submit(send, world, session_id) for session_id in stuck]
        wait_until(lambda: waiting_for_locks(outsider) == 5, why="a quarter of the connections waits")
        act(world, ENTRIES["send"], other, OWNER)
        with locked(outsider, contended.session_id):
            patient = pool.submit(act, world, ENTRIES["send"], contended, OWNER)
            wait_until(lambda: contended.session_id in world.backend._locks._queues, why="it waits")
        patient.result(LOCK_SECONDS / 2)

    for future in waiting:
        future.result(20)


def send(world: World, session_id: UUID) -> None:
    with world.backend.unit_of_work() as uow:
        messages.send(uow, session_id, OWNER, content="x")


def test_waiting_writes_are_done_in_order(world: World, pool: ThreadPoolExecutor, outsider: Engine) -> None:
    at = furnish(world)
    queues = world.backend._locks._queues
    waiting = []

    with locked(outsider, at.session_id):
        for number in range(10):
            waiting.append(pool.submit(say, world, at.session_id, str(number)))
            wait_until(lambda n=number: len(queues.get(at.session_id, ())) > n, why="it waits")

    seqs = [future.result(20) for future in waiting]
    assert seqs == sorted(seqs)
    assert queues == {}


def say(world: World, session_id: UUID, content: str) -> int:
    return world.say(session_id, content).seq


def test_stuck_quota_day_stalls_only_its_user(world: World, pool: ThreadPoolExecutor, outsider: Engine) -> None:
    mine, theirs = [world.new_session() for _ in range(2 * WRITERS)], furnish(world)
    quota = Quota(requests=100)

    def ask(session_id: UUID) -> None:
        with world.backend.unit_of_work() as uow:
            messages.send(uow, session_id, OWNER, content="x", process=True, quota=quota)

    ask(mine[0])
    with outsider.begin() as connection:
        connection.execute(text("SELECT 1 FROM quota_days FOR UPDATE"))
        waiting = [pool.submit(ask, session_id) for session_id in mine]
        wait_until(lambda: waiting_for_locks(outsider) > 1, why="some wait for the day")
        for _ in range(3):
            pool.submit(act, world, ENTRIES["send"], theirs, MEMBER).result(LOCK_SECONDS / 2)
        assert all(is_unavailable(future) for future in waiting)

    ask(mine[0])


def test_equal_keys_that_wait_stall_nobody(world: World, pool: ThreadPoolExecutor, outsider: Engine) -> None:
    intent = Intent.of("key", "make_session", {}, kept_seconds=100)
    other = furnish(world)

    def make() -> UUID:
        with world.backend.unit_of_work() as uow:
            return chat_sessions.make(uow, OWNER, intent=intent, **FIELDS)[0].id

    with world.backend.unit_of_work() as uow:
        made = chat_sessions.make(uow, OWNER, intent=intent, **FIELDS)[0].id
        uow.session.flush()
        waiting = [pool.submit(make) for _ in range(3 * WRITERS)]
        for _ in range(3):
            pool.submit(act, world, ENTRIES["send"], other, OWNER).result(LOCK_SECONDS / 2)

    assert {future.result(20) for future in waiting} == {made}


def test_locked_job_stalls_only_its_session(world: World, pool: ThreadPoolExecutor, outsider: Engine) -> None:
    stuck, other = [furnish(world) for _ in range(WRITERS)], furnish(world)

    with outsider.begin() as connection:
        connection.execute(
            text("SELECT 1 FROM llm_jobs WHERE id = ANY(:ids) FOR UPDATE"), {"ids": [at.job_id for at in stuck]}
        )
        waiting = [pool.submit(act, world, ENTRIES["cancel"], at, OWNER) for at in stuck]
        wait_until(lambda: waiting_for_locks(outsider) == WRITERS, why="all cancels wait")
        pool.submit(act, world, ENTRIES["send"], other, OWNER).result(LOCK_SECONDS / 2)

    for future in waiting:
        future.result(20)


def test_worker_claims_beside_a_stuck_session(world: World, pool: ThreadPoolExecutor, outsider: Engine) -> None:
    stuck, others = furnish(world), [furnish(world) for _ in range(2)]

    with locked(outsider, stuck.session_id):
        waiting = [pool.submit(world.claim, stuck.job_id) for _ in range(2 * WRITERS)]
        wait_until(lambda: waiting_for_locks(outsider), why="the first waits for the lock")
        for at in others:
            assert pool.submit(world.claim, at.job_id).result(LOCK_SECONDS / 2) is not None

    claims = [future.result(20) for future in waiting]
    assert [claim is not None for claim in claims].count(True) == 1

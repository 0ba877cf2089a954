"""A deployment that a test may hurt: processes that come and go, and the truth to compare with afterwards."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select

from chat_backend.bootstrap import Backend, connect
from chat_backend.config import Settings
from chat_backend.domain.enums import UNFINISHED_JOB, JobStatus, MessageStatus
from chat_backend.models import ChatSession, IdempotencyKey, LlmAttempt, LlmJob, Message, StorageChange
from chat_backend.services.invariants import examine
from tests.support import processes
from tests.support.chat import Chat
from tests.support.follower import Follower
from tests.support.processes import Process
from tests.support.provider_script import expected_text, script_for
from tests.support.provider_stub import Stub
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

QUIET_SECONDS = 40.0


class Silent:
    """Ways out that lead nowhere: a process that died right after its commit."""

    def publish(self, envelopes: list[Any]) -> None: ...

    def wake(self, job_ids: list[UUID]) -> None: ...

    def cancel(self, job_ids: list[UUID]) -> None: ...

    def close(self) -> None: ...


class Deployment:
    """Web and worker processes over one database, one Redis and one provider."""

    def __init__(self, environment: dict[str, str], *, valkey: Valkey, stub: Stub, folder: Path) -> None:
        self.environment = environment | {"REDIS_URL": valkey.url, "LOCAL_LLM_BASE_URL": stub.base_url}
        self.settings = Settings.from_environment(self.environment)
        self.valkey = valkey
        self.stub = stub
        self.webs: list[Process] = []
        self.workers: list[Process] = []
        self.followers: list[Follower] = []
        # The database as a test sees it; what is written through it is told to nobody.
        self.backend = Backend(self.settings, connect(self.settings).engine, Silent())
        self.folder = folder
        self._chats: list[Chat] = []

    # What runs

    def start(self, name: str, **changes: str) -> Process:
        """Start one process more."""
        process = processes.start(name, self.environment | changes, self.folder)
        (self.webs if name == "web" else self.workers).append(process)
        return process

    def ensure(self, *, webs: int = 1, workers: int = 1) -> None:
        """See to it that so many of each run, and no more."""
        self.webs = self._keep(self.webs, webs)
        self.workers = self._keep(self.workers, workers)
        wanted = ["web"] * (webs - len(self.webs)) + ["worker"] * (workers - len(self.workers))
        threads = [threading.Thread(target=self.start, args=(name,)) for name in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(self.webs), len(self.workers)) == (webs, workers), "a process did not start"

    def _keep(self, running: list[Process], most: int) -> list[Process]:
        alive = [process for process in running if process.exit_status is None]
        for process in alive[most:]:
            process.kill()
        return alive[:most]

    @property
    def web(self) -> Process:
        return self.webs[0]

    @property
    def worker(self) -> Process:
        return self.workers[0]

    def stop(self) -> None:
        """End everything."""
        self.forget_clients()
        for process in (*self.webs, *self.workers):
            process.kill()
        self.backend.close()

    # Clients

    def chat(self, user: str = "alice", *, web: int = 0) -> Chat:
        chat = Chat(self.webs[web].url, user)
        self._chats.append(chat)
        return chat

    def follow(self, chat: Chat, session_id: str, **query: Any) -> Follower:
        """Watch a session; at the end of the test the follower must believe what is stored."""
        follower = Follower(chat, session_id, **query)
        self.followers.append(follower)
        return follower

    def forget_clients(self) -> None:
        for follower in self.followers:
            follower.close()
        for chat in self._chats:
            chat.http.close()
        self.followers, self._chats = [], []

    # The provider

    def calls(self, tag: str = "") -> list[dict[str, Any]]:
        """The provider's requests so far; with a tag, those whose model's name holds it."""
        return [call for call in self.stub.ledger() if f"tag={tag}" in call["model"] + ","]

    def until_called(self, tag: str, *, times: int = 1, seconds: float = 15.0) -> dict[str, Any]:
        """Wait until the provider was asked so often, and return the last request."""
        wait_until(lambda: len(self.calls(tag)) >= times, seconds=seconds, why=f"{tag} is asked {times} times")
        return self.calls(tag)[times - 1]

    # The truth

    def fresh(self) -> None:
        """Begin anew: no rows, no ledger."""
        with self.backend.unit_of_work() as uow:
            for table in (ChatSession, IdempotencyKey, StorageChange):
                uow.session.execute(delete(table))
        self.stub.clear()

    def job(self, job_id: str) -> LlmJob:
        """A job as it is stored, with its attempts."""
        with self.backend.reading() as session:
            job = session.get(LlmJob, UUID(job_id))
            assert job is not None
            _ = job.attempts
            return job

    def until_job(self, job_id: str, *status: JobStatus, seconds: float = 20.0) -> LlmJob:
        wait_until(lambda: self.job(job_id).status in status, seconds=seconds, why=f"the job is {status}")
        return self.job(job_id)

    def until_quiet(self, seconds: float = QUIET_SECONDS) -> None:
        """Wait until every accepted job has its end."""
        wait_until(lambda: not self._unfinished(), seconds=seconds, why="every job has an end")

    def _unfinished(self) -> int:
        with self.backend.reading() as session:
            return session.scalar(select(func.count()).where(LlmJob.status.in_(UNFINISHED_JOB))) or 0

    def check(self) -> None:
        """Compare everything with everything, once it is quiet."""
        self.until_quiet()
        with self.backend.reading() as session:
            diagnosis = examine(session, patience_seconds=0)
        assert diagnosis.healthy, diagnosis
        self._check_accepted()
        self._check_texts()
        self._check_calls()
        self._check_followers()

    def _check_accepted(self) -> None:
        """Whatever was answered with a 2xx is stored, unless its chat session was deleted since."""
        _, stored = self._stored()
        accepted = {(UUID(session_id), UUID(id)) for chat in self._chats for session_id, id in chat.accepted}
        lost = [id for session_id, id in accepted if session_id in stored and id not in stored[session_id]]
        assert not lost, f"accepted and not stored: {lost}"

    def _check_texts(self) -> None:
        said: dict[tuple[str, str], set[str]] = defaultdict(set)
        for call in self.stub.ledger():
            said[call["model"], call["last_user_message"]].add(call["text"].replace("\0", ""))
        for job, question, reply in self._replies():
            script = script_for(job.model, question)
            whole = expected_text(script.tag, script.tokens)
            if reply.status == MessageStatus.COMPLETE:
                assert reply.content in said[job.model, question], f"job {job.id}: {reply.content!r}"
                limited = reply.message_metadata.get("finish_reason") == "length"
                assert limited or reply.content.endswith(whole), f"job {job.id}: {reply.content!r}"
            else:
                assert reply.status in (MessageStatus.CANCELLED, MessageStatus.FAILED)
                assert whole.startswith(reply.content), f"job {job.id}: {reply.content!r}"

    def _replies(self) -> Iterator[tuple[LlmJob, str, Message]]:
        with self.backend.reading() as session:
            for job in session.scalars(select(LlmJob)):
                question, reply = session.get(Message, job.message_id), session.get(Message, job.assistant_message_id)
                assert question is not None
                assert reply is not None
                yield job, question.content, reply

    def _check_calls(self) -> None:
        """Nothing was asked of the provider that is not among the attempts."""
        query = (
            select(LlmAttempt.model, Message.content)
            .join(LlmJob, LlmJob.id == LlmAttempt.job_id)
            .join(Message, Message.id == LlmJob.message_id)
        )
        with self.backend.reading() as session:
            known = set(session.scalars(select(Message.content)))
            attempts = Counter(map(tuple, session.execute(query)))
        # A call that found its kept connection closed is made again within its attempt.
        answered = [call for call in self.stub.ledger() if not call["dropped"]]
        calls = Counter((call["model"], call["last_user_message"]) for call in answered)
        too_many = {call: n for call, n in calls.items() if n > attempts[call] and call[1] in known}
        assert not too_many, f"asked more often than there are attempts: {too_many}"

    def _check_followers(self) -> None:
        offsets, stored = self._stored()
        for follower in self.followers:
            session_id = UUID(follower.session_id)
            if session_id not in offsets or follower.closed_with is not None:
                continue
            follower.catch_up(offsets[session_id])
            believed = {id: text for id, text in follower.texts.items() if UUID(id) in stored[session_id]}
            assert believed == {str(id): stored[session_id][id] for id in map(UUID, believed)}

    def _stored(self) -> tuple[dict[UUID, int], dict[UUID, dict[UUID, str]]]:
        texts: dict[UUID, dict[UUID, str]] = defaultdict(dict)
        with self.backend.reading() as session:
            offsets = dict(map(tuple, session.execute(select(ChatSession.id, ChatSession.last_offset))))
            for session_id, id, text in session.execute(select(Message.session_id, Message.id, Message.content)):
                texts[session_id][id] = text
        return offsets, texts


@contextmanager
def recovered(deployment: Deployment) -> Iterator[Deployment]:
    """Give a deployment to a test in good health; afterwards let it recover, and check everything."""
    deployment.valkey.start()
    deployment.ensure()
    deployment.fresh()
    try:
        yield deployment
        deployment.valkey.start()
        deployment.valkey.thaw()
        deployment.ensure()
        deployment.check()
    finally:
        # pytest shows it where the test, or what is checked after it, has failed.
        for process in (*deployment.webs, *deployment.workers):
            print(f"--- {process.name}\n{process.log[-4000:]}")
        deployment.valkey.start()
        deployment.valkey.thaw()
        deployment.forget_clients()

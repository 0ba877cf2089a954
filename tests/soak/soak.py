"""Conversations while a chaos loop kills, freezes and empties what it can: seeded, bounded, counted."""

from __future__ import annotations

import random
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx

from chat_backend.domain.enums import UNFINISHED_REPLY, MessageStatus
from tests.support.chat import Chat, Frame
from tests.support.deployment import Deployment
from tests.support.follower import Follower
from tests.support.processes import Process, start

CONVERSATIONS = 6
TURN_SECONDS = 120.0
RETRY_SECONDS = 0.2
SCRIPTS = (
    "tokens=15",
    "tokens=60,delay=0.02",
    "tokens=120,delay=0.03",
    "tokens=40,delay=0.03,burst=4",
    "tokens=60,delay=0.02,cut=20,times=1",
    "tokens=30,delay=0.02,fail=503,times=1",
    "tokens=30,delay=0.02,hang=stream,after=10,times=1",
)
COME_BACK_STATUSES = {502, 503, 504}


class Soak:
    """One run. `tally` counts what happened, `violations` tells what must not."""

    def __init__(self, deployment: Deployment, *, seed: int, seconds: float) -> None:
        self.deployment = deployment
        self.tally: Counter[str] = Counter()
        self.violations: list[str] = []
        self._random = random.Random(seed)
        self._ends_at = time.monotonic() + seconds
        self._lock = threading.Lock()

    def run(self) -> None:
        """Talk and do damage until the time is up, then let everything recover and compare it."""
        talkers = [
            threading.Thread(target=self._talk, args=(random.Random(self._random.random()),))
            for _ in range(CONVERSATIONS)
        ]
        for talker in talkers:
            talker.start()
        self._do_damage()
        for talker in talkers:
            talker.join()
        self._guarded(self._check_processes)
        self._guarded(self.deployment.check)

    def _check_processes(self) -> None:
        """Nobody may have ended but by our hand."""
        for process in (*self.deployment.webs, *self.deployment.workers):
            assert process.exit_status is None, f"{process.name} ended by itself:\n{process.log[-2000:]}"

    def _count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.tally[what] += number

    def _guarded(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception:  # whatever went wrong is what this is for
            with self._lock:
                self.violations.append(traceback.format_exc())

    # Conversations

    def _talk(self, chance: random.Random) -> None:
        while time.monotonic() < self._ends_at:
            self._guarded(lambda: Conversation(self, chance).hold())

    # Damage

    def _do_damage(self) -> None:
        faults: list[Callable[[], None]] = [
            self._kill_worker, self._terminate_worker, self._kill_web, self._terminate_web,
            self._flush, self._freeze, self._restart_redis, self._cut_clients,
        ]  # fmt: skip
        while time.monotonic() < self._ends_at:
            fault = self._random.choice(faults)
            self._count(fault.__name__.strip("_").replace("_", " "))
            self._guarded(fault)
            time.sleep(self._random.uniform(0.2, 1.5))

    def _kill_worker(self) -> None:
        self._replace(self.deployment.workers, Process.kill)

    def _terminate_worker(self) -> None:
        self._replace(self.deployment.workers, lambda process: self._terminate(process))

    def _kill_web(self) -> None:
        self._replace(self.deployment.webs, Process.kill)

    def _terminate_web(self) -> None:
        self._replace(self.deployment.webs, lambda process: self._terminate(process))

    def _terminate(self, process: Process) -> None:
        process.send(signal.SIGTERM)
        assert process.wait(25) == 0, f"{process.name} ended with {process.exit_status}"

    def _replace(self, processes: list[Process], end: Callable[[Process], Any]) -> None:
        victim = self._random.randrange(len(processes))
        old = processes[victim]
        assert old.exit_status is None, f"{old.name} ended by itself:\n{old.log[-2000:]}"
        port = {"PORT": str(old.port)} if old.name == "web" else {}
        end(old)
        processes[victim] = start(old.name, self.deployment.environment | port, self.deployment.folder)

    def _flush(self) -> None:
        self.deployment.valkey.flush()

    def _freeze(self) -> None:
        self.deployment.valkey.freeze()
        time.sleep(self._random.uniform(0.5, 6.0))
        self.deployment.valkey.thaw()

    def _restart_redis(self) -> None:
        self.deployment.valkey.kill()
        time.sleep(self._random.uniform(0.0, 2.0))
        self.deployment.valkey.start()

    def _cut_clients(self) -> None:
        with self.deployment.valkey.client() as client:
            for kind in ("normal", "pubsub"):
                client.client_kill_filter(_type=kind, skipme=True)


class Conversation:
    """A few turns of one chat session, watched by two viewers that come and go."""

    def __init__(self, soak: Soak, chance: random.Random) -> None:
        self._soak = soak
        self._chance = chance
        self._chats = [Chat(web.url) for web in soak.deployment.webs]

    def hold(self) -> None:
        """Talk, then see that both viewers believe what is stored."""
        try:
            self._hold()
        finally:
            for chat in self._chats:
                chat.http.close()

    def _hold(self) -> None:
        model = f"stub:{self._chance.choice(SCRIPTS)},tag={uuid4().hex[:6]}"
        session = self._ask("POST", "/sessions", {"llm_provider": "LOCAL", "llm_model": model})
        followers = [self._follow(session["id"], deltas=deltas) for deltas in (0, 1)]
        try:
            for _ in range(self._chance.randint(1, 3)):
                self._turn(session["id"], followers)
            self._compare(session["id"], followers)
        finally:
            for follower in followers:
                self._soak._count("reconnects", follower.reconnects)
                self._soak._count("recovered", follower.recovered)
                self._soak._count("refetched", follower.refetched)
                follower.close()

    def _turn(self, session_id: str, followers: list[Follower]) -> None:
        body = {"content": f"Go on. {uuid4().hex[:8]}", "process": True}
        job = self._ask("POST", f"/sessions/{session_id}/messages", body)["job"]
        cancels = self._chance.random() < 0.2
        if cancels:
            followers[1].until(lambda frame: "message_delta" in frame["type"] or _ended(frame), seconds=TURN_SECONDS)
            self._ask("POST", f"/jobs/{job['id']}/cancel", None)
            self._soak._count("cancels")
        for follower in followers:
            if self._chance.random() < 0.4:
                follower.cut()
        for follower in followers:
            self._until_ended(follower, job["assistant_message_id"])
        self._check_end(followers[0].viewer.messages[job["assistant_message_id"]], cancelled=cancels)

    def _check_end(self, reply: Frame, *, cancelled: bool) -> None:
        """Every script can be answered whole, so every reply is, but for those that were stopped."""
        allowed = {MessageStatus.COMPLETE, *([MessageStatus.CANCELLED] if cancelled else [])}
        self._soak._count("replies")
        self._soak._count(f"replies {reply['status']}")
        assert reply["status"] in allowed, f"a reply ended {reply['status']}: {reply}"

    def _until_ended(self, follower: Follower, message_id: str) -> None:
        def known() -> bool:
            message = follower.viewer.messages.get(message_id)
            return message is not None and message["status"] not in UNFINISHED_REPLY

        if not known():
            follower.until(lambda frame: known(), seconds=TURN_SECONDS)

    def _compare(self, session_id: str, followers: list[Follower]) -> None:
        page = self._ask("GET", f"/sessions/{session_id}/messages?page_size=200", None)
        stored = {message["id"]: message["content"] for message in page["messages"]}
        for follower in followers:
            follower.catch_up(page["offset"], seconds=TURN_SECONDS)
            believed = {id: text for id, text in follower.texts.items() if id in stored}
            assert believed == {id: stored[id] for id in believed}, f"{believed} is not {stored}"
            assert len(believed) == len(stored), "a viewer missed a message"

    def _follow(self, session_id: str, **query: int) -> Follower:
        return self._until_it_works(lambda chat: Follower(chat, session_id, **query))

    def _ask(self, method: str, path: str, body: Frame | None) -> Frame:
        """Ask again, under one key, until it was answered: what a careful client does."""
        headers = {"Idempotency-Key": uuid4().hex} if method == "POST" else {}

        def ask(chat: Chat) -> Frame | None:
            answer = chat.http.request(method, path, json=body, headers=headers)
            if answer.status_code in COME_BACK_STATUSES:
                return None
            assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
            found: Frame = answer.json()
            return found

        return self._until_it_works(ask)

    def _until_it_works(self, what: Callable[[Chat], Any]) -> Any:
        deadline = time.monotonic() + TURN_SECONDS
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError, OSError, EOFError):
                if (found := what(self._chance.choice(self._chats))) is not None:
                    return found
            time.sleep(RETRY_SECONDS)
        raise AssertionError(f"nobody answered for {TURN_SECONDS:g} s")


def _ended(frame: Frame) -> bool:
    return frame.get("action") in ("completed", "failed", "cancelled")

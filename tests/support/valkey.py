"""A real Redis (Valkey) that a test may fill, empty, freeze, kill and bring back."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import redis

from chat_backend.cli import embedded
from tests.support.waiting import wait_until

START_SECONDS = 10.0


class Valkey:
    """One server on one port: the address stays the same over restarts."""

    def __init__(self, folder: Path, *extra: str) -> None:
        self._folder = folder
        self._server = embedded.prepare(folder, extra=extra)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server, unless it runs; returns when it answers."""
        if self.is_running:
            return
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(self._server.command, stdout=log, stderr=log)
        wait_until(self._server.answers, seconds=START_SECONDS, why="Valkey answers")

    def stop(self) -> None:
        """End it in good order: its data is on disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self, *, empty: bool = False) -> None:
        """Kill it and bring it back: with what it has on disk, or without."""
        self.kill()
        if empty:
            shutil.rmtree(self._folder / "appendonlydir")
        self.start()

    def freeze(self) -> None:
        """Let it hang: connections stay open and nothing answers."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        if self._process and self.is_running:
            self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """Return a client; the caller closes it, best with `with`."""
        return redis.Redis.from_url(self.url, socket_timeout=5)

    def flush(self) -> None:
        """Empty it."""
        with self.client() as client:
            client.flushall()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self.thaw()
        self._process.send_signal(how)
        self._process.wait(10)
        self._process = None

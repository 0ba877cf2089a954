"""Real processes, started by the Procfile's own lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from uuid import uuid4

from chat_backend.cli.embedded import free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
HEALTH = "/api/v1/chat/health"
READY_SECONDS = 40.0
STOP_SECONDS = 28.0
MARK = "CHAT_TESTS_MARK"
# What a process needs to find its programs, and coverage its way into it.
INHERITED = ("HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")

_numbers = count(1)


class Process:
    """A started process and everything that it starts in turn; its output goes to a file."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.environ = dict(environ)
        self.log_path = folder / f"{name}-{next(_numbers)}.log"
        self._mark = uuid4().hex
        with self.log_path.open("wb") as log:
            self._popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=surroundings() | self.environ | {MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def port(self) -> int:
        return int(self.environ["PORT"])

    @property
    def url(self) -> str:
        """Where a web process answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.log_path.read_text(errors="replace")

    @property
    def exit_status(self) -> int | None:
        return self._popen.poll()

    @property
    def family(self) -> list[int]:
        """The process ids of it and its descendants, wherever they went; Linux only."""
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and self._marked(entry)]

    def wait_until_ready(self, ready: Callable[[], object], *, seconds: float = READY_SECONDS) -> None:
        """Wait until it is ready. Fails with its log where it ends before that, or takes too long."""
        wait_until(lambda: ready() or self.exit_status is not None, seconds=seconds, why=f"{self.name} is ready")
        assert self.exit_status is None, f"{self.name} ended with status {self.exit_status}:\n{self.log}"

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to it alone."""
        self._popen.send_signal(signum)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end and return its exit status."""
        return self._popen.wait(seconds)

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Terminate it as a platform does, and return its exit status; nothing of it may be left."""
        self.terminate()
        return self.end(seconds)

    def terminate(self) -> None:
        """Tell it to end, as a platform does."""
        if self.exit_status is None:
            self.send(signal.SIGTERM)

    def end(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end once it was told to, and return its exit status; nothing of it may be left."""
        try:
            status = self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not stop within {seconds:g} s:\n{self.log}") from None
        wait_until(lambda: not self.family, seconds=3, why=f"nothing is left of {self.name}")
        return status

    def kill(self) -> None:
        """End it and everything it started, as a power cut would."""
        for pid in self.family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._popen.wait(10)

    def _marked(self, entry: Path) -> bool:
        try:
            return f"{MARK}={self._mark}".encode() in (entry / "environ").read_bytes()
        except OSError:
            return False


def surroundings() -> dict[str, str]:
    """Return the little of our own environment that a child gets."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | {"PATH": path}


def procfile() -> dict[str, str]:
    """Return the Procfile's command lines by name."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: command.strip() for name, _, command in (line.partition(":") for line in lines if line.strip())}


def start(name: str, environ: Mapping[str, str], folder: Path) -> Process:
    """Start a line of the Procfile and return when it works; a web process gets a free PORT unless given one."""
    if name == "web":
        environ = {"PORT": str(free_port()), **environ}
    process = Process(name, ["sh", "-c", f"exec {procfile()[name]}"], environ, folder)
    try:
        process.wait_until_ready(_readiness(process))
    except AssertionError:
        process.kill()
        raise
    return process


def answers(url: str) -> bool:
    """Say whether anything answers at an address, with whatever status."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False


def _readiness(process: Process) -> Callable[[], object]:
    if process.name == "web":
        return lambda: answers(process.url + HEALTH)
    if process.name == "worker":
        return lambda: "ready." in process.log
    if process.name == "flower":
        return lambda: answers(f"http://127.0.0.1:{process.environ.get('FLOWER_PORT', 5555)}/healthcheck")
    return lambda: True

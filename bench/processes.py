"""Processes that are measured: started, watched by /proc, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
READY_SECONDS = 60.0
STOP_SECONDS = 30.0
INHERITED = ("HOME", "LANG", "LC_ALL", "TMPDIR", "USER")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """A started process; its output goes to a file."""

    def __init__(
        self, name: str, command: Sequence[str], *, environ: Mapping[str, str], folder: Path, cwd: Path = HERE
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
        with self._log.open("wb") as log:
            self._popen = subprocess.Popen(
                command,
                cwd=cwd,
                # Its folder's own code, also where another checkout is installed.
                env=inherited | {"PATH": path, "PYTHONPATH": str(cwd)} | dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until(self, ready: Callable[[], object], *, seconds: float = READY_SECONDS) -> None:
        """Wait until it is ready; ends the program with its log where it is not in time."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.name} is not ready:\n{self.log[-5000:]}")
            time.sleep(0.05)

    def wait_until_ended(self, seconds: float = READY_SECONDS) -> None:
        """Wait for its end; ends the program with its log where it failed."""
        if self._popen.wait(seconds):
            raise SystemExit(f"{self.name} failed:\n{self.log[-5000:]}")

    def stop(self) -> None:
        """End it and all that it started."""
        with suppress(ProcessLookupError):
            self._popen.terminate()
        try:
            self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._popen.wait()


def listens(port: int) -> bool:
    """Say whether somebody takes connections at a port."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def families(roots: Iterable[int]) -> set[int]:
    """Return the process ids and those of all their descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the processor time that process families have used, in user and system, since they began."""
    stats = (_stat(pid) for pid in families(roots))
    # Its own, and that of the children it has waited for: they are not in the list any more.
    return sum(sum(map(int, stat[11:15])) for stat in stats if stat) / _TICKS


def resident_bytes(roots: Iterable[int]) -> int:
    """Return the memory that process families hold, shared pages counted in each."""
    stats = (_stat(pid) for pid in families(roots))
    return sum(int(stat[21]) * _PAGE for stat in stats if stat)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from `state` on: the name before it may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

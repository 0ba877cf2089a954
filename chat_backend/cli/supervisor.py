"""Run several programs as one: their output on one console, restarted when they die, stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TextIO

LEASH = Path(__file__).with_name("leash.py")
TICK_SECONDS = 0.1
DEATHS = 3
DEATHS_SECONDS = 60.0
BACKOFF_SECONDS = 1.0
# What a second Ctrl-C leaves each program.
HURRY_SECONDS = 1.0
KILL_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run, and how much it matters."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    # Without an essential program there is no point in the others.
    essential: bool = True
    stop_seconds: float = 10.0
    is_noise: Callable[[str], bool] = field(default=lambda line: False)


class Console:
    """One console for all: whole lines, each with the name of who said it."""

    def __init__(self, stream: TextIO | None = None, *, width: int = 6) -> None:
        self._stream = stream or sys.stdout
        self._width = width
        self._lock = threading.Lock()

    def say(self, name: str, line: str) -> None:
        """Write a line; a console that is gone is nobody's fault."""
        with self._lock, suppress(OSError, ValueError):
            self._stream.write(f"{name:<{self._width}} | {line}\n" if name else f"{line}\n")
            self._stream.flush()


class Child:
    """A program that was started: its process, when it died, and when it may start again."""

    def __init__(self, program: Program, console: Console) -> None:
        self.program = program
        self.starts_at: float | None = None
        self._console = console
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the program, in a session of its own: a Ctrl-C reaches the supervisor alone.

        Only from the main thread: the kernel watches over the thread that started a child.
        """
        self.starts_at = None
        command = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *self.program.command]
        self._process = subprocess.Popen(  # noqa: S603 - the commands are our own
            command,
            env=dict(self.program.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def exit_status(self) -> int | None:
        """Return the exit status, or None while it runs or is not started."""
        return self._process.poll() if self._process else None

    def buried(self, now: float) -> bool:
        """Note a death; say whether it was one too many, else set the time of the next start."""
        self._sweep_up()
        recent = [death for death in self._deaths if now - death < DEATHS_SECONDS]
        self._deaths.append(now)
        if len(recent) + 1 >= DEATHS:
            return True
        self.starts_at = now + BACKOFF_SECONDS * 2 ** len(recent)
        return False

    def terminate(self) -> None:
        """Ask the program to stop."""
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End the program and whatever it started."""
        if self._process:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_SECONDS)
            self._sweep_up()

    def _sweep_up(self) -> None:
        """End what a program that is gone left behind, and hear its last words."""
        assert self._process
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._reader:
            self._reader.join(KILL_SECONDS)
        self._process = None

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip()
                if not self.program.is_noise(line):
                    self._console.say(self.program.name, line)


class Supervisor:
    """Starts programs in order, watches them, and stops them in reverse."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._children: list[Child] = []
        self._signals = 0
        self._gave_up = False

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for the end."""
        return self._signals > 0

    def listen(self) -> None:
        """Take Ctrl-C, SIGTERM and a closed terminal as the wish to stop; twice: at once."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if number := getattr(signal, name, None):
                signal.signal(number, self._asked_to_stop)

    def start(self, program: Program) -> None:
        """Start a program and watch it from now on."""
        child = Child(program, self.console)
        self._children.append(child)
        child.start()

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Watch until something holds; False after so long, or when it is time to stop."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or not self._tick():
                return False
        return True

    def watch(self) -> int:
        """Watch until asked to stop (0), or until an essential program is given up (1)."""
        while self._tick():
            pass
        return 0 if self.stopping else 1

    def stop(self) -> None:
        """Stop everything, the last started first: asked, and after its time ended. Returns in bounded time."""
        for child in reversed(self._children):
            child.terminate()
            if not self._gone(child):
                self.console.say("", f"{child.program.name} did not stop in time and is ended.")
            child.kill()
        self._children.clear()

    def _gone(self, child: Child) -> bool:
        began = time.monotonic()
        while child.pid is not None and child.exit_status() is None:
            hurry = self._signals > 1
            if time.monotonic() - began > (HURRY_SECONDS if hurry else child.program.stop_seconds):
                return False
            time.sleep(TICK_SECONDS / 2)
        return True

    def _tick(self) -> bool:
        """Look after every program once; False when it is time to stop."""
        now = time.monotonic()
        for child in list(self._children):
            if not (self.stopping or self._gave_up):
                self._look_after(child, now)
        if not (self.stopping or self._gave_up):
            time.sleep(TICK_SECONDS)
        return not (self.stopping or self._gave_up)

    def _look_after(self, child: Child, now: float) -> None:
        if child.starts_at is not None:
            if now >= child.starts_at:
                child.start()
            return
        status = child.exit_status()
        if status is not None:
            self._after_death(child, status, now)

    def _after_death(self, child: Child, status: int, now: float) -> None:
        program = child.program
        died = f"{program.name} ended by itself (status {status})"
        if not child.buried(now):
            self.console.say("", f"{died}; it starts again.")
        elif program.essential:
            self._gave_up = True
            self.console.say("", f"{died}, {DEATHS} times within a minute: stopping everything.")
        else:
            self._children.remove(child)
            self.console.say("", f"{died}, {DEATHS} times within a minute: going on without it.")

    def _asked_to_stop(self, signum: int, frame: object) -> None:
        # Nothing but counting: a lock here could be one that the interrupted code holds.
        self._signals += 1

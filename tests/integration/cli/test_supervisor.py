"""The supervisor, over small real programs."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_backend.cli import supervisor as module
from chat_backend.cli.supervisor import Console, Program, Supervisor
from tests.support.processes import ROOT
from tests.support.waiting import wait_until


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervisor(output: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.05)
    started = Supervisor(Console(output))
    yield started
    started.stop()


def python(code: str, *, name: str = "part", **more: object) -> Program:
    return Program(name=name, command=(sys.executable, "-uc", code), environ=os.environ, **more)  # type: ignore[arg-type]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_line_says_who_said_it(supervisor: Supervisor, output: io.StringIO) -> None:
    supervisor.start(python("print('hello'); print('there'); import time; time.sleep(60)", name="web"))

    assert supervisor.wait_until(lambda: "there" in output.getvalue(), 10)

    assert output.getvalue() == "web    | hello\nweb    | there\n"


def test_noise_is_left_out(supervisor: Supervisor, output: io.StringIO) -> None:
    program = python(
        "print('noise'); print('news'); import time; time.sleep(60)", is_noise=lambda line: line == "noise"
    )
    supervisor.start(program)

    supervisor.wait_until(lambda: "news" in output.getvalue(), 10)

    assert "noise" not in output.getvalue()


def test_who_dies_starts_again(supervisor: Supervisor, output: io.StringIO, tmp_path: Path) -> None:
    code = f"""
import pathlib, time
first = pathlib.Path({str(tmp_path)!r}, 'first')
if not first.exists():
    first.touch()
    raise SystemExit(3)
print('back'); time.sleep(60)
"""
    supervisor.start(python(code))

    assert supervisor.wait_until(lambda: "back" in output.getvalue(), 10)

    assert "part ended by itself (status 3); it starts again" in output.getvalue()


def test_an_essential_part_that_keeps_dying_ends_everything(supervisor: Supervisor, output: io.StringIO) -> None:
    supervisor.start(python("import time; time.sleep(60)", name="other"))
    supervisor.start(python("raise SystemExit(1)"))

    status = supervisor.watch()

    assert status == 1
    assert "3 times within a minute: stopping everything" in output.getvalue()


def test_it_stays_given_up(supervisor: Supervisor) -> None:
    supervisor.start(python("raise SystemExit(1)"))

    found = supervisor.wait_until(lambda: False, 30)

    assert (found, supervisor.watch()) == (False, 1)


def test_a_part_that_is_not_essential_is_done_without(supervisor: Supervisor, output: io.StringIO) -> None:
    supervisor.start(python("raise SystemExit(1)", essential=False))

    assert supervisor.wait_until(lambda: "going on without it" in output.getvalue(), 10)

    assert not supervisor.stopping


def test_a_program_that_is_missing_is_named(supervisor: Supervisor, output: io.StringIO) -> None:
    supervisor.start(Program(name="part", command=("no-such-program",), environ=os.environ))

    supervisor.watch()

    assert "no-such-program is not installed." in output.getvalue()


def test_who_does_not_stop_is_ended(supervisor: Supervisor, output: io.StringIO) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
    supervisor.start(python(stubborn, stop_seconds=0.3))
    supervisor.wait_until(lambda: "ready" in output.getvalue(), 10)

    supervisor.stop()

    assert "part did not stop in time and is ended" in output.getvalue()


def test_children_of_a_part_go_with_it(supervisor: Supervisor, output: io.StringIO) -> None:
    code = """
import subprocess, sys, time
stubborn = 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)'
child = subprocess.Popen([sys.executable, '-c', stubborn])
print('child', child.pid); time.sleep(60)
"""
    supervisor.start(python(code))
    supervisor.wait_until(lambda: "child" in output.getvalue(), 10)
    child = int(output.getvalue().split()[-1])

    supervisor.stop()

    wait_until(lambda: not is_alive(child), why="the child is gone")


def test_the_last_started_stops_first(supervisor: Supervisor, output: io.StringIO) -> None:
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(print('bye'))); print('ready'); time.sleep(60)"
    )
    for name in ("first", "second"):
        supervisor.start(python(code, name=name))
    supervisor.wait_until(lambda: output.getvalue().count("ready") == 2, 10)

    supervisor.stop()

    said = [line.split()[0] for line in output.getvalue().splitlines() if line.endswith("bye")]
    assert said == ["second", "first"]


def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    code = """
import os, sys
from chat_backend.cli.supervisor import Console, Program, Supervisor
supervisor = Supervisor(Console())
supervisor.start(Program(name="part", command=("sleep", "60"), environ=os.environ))
print(supervisor._children[0].pid, flush=True)
supervisor.watch()
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.kill()

    wait_until(lambda: not is_alive(child), why="the child is gone")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_watch_in_good_order(signum: signal.Signals) -> None:
    code = """
import os
from chat_backend.cli.supervisor import Console, Program, Supervisor
supervisor = Supervisor(Console())
supervisor.listen()
supervisor.start(Program(name="part", command=("sleep", "60"), environ=os.environ))
print("watching", flush=True)
status = supervisor.watch()
supervisor.stop()
raise SystemExit(status)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signum)
        # Harmless: the second and third only hurry.
        process.send_signal(signum)
        status = process.wait(10)

    assert status == 0


def test_lines_of_many_do_not_mix() -> None:
    output = io.StringIO()
    console = Console(output)
    speakers = [threading.Thread(target=lambda n=n: [console.say(n, n * 50) for _ in range(200)]) for n in "abcd"]
    for speaker in speakers:
        speaker.start()
    for speaker in speakers:
        speaker.join()

    assert set(output.getvalue().splitlines()) == {f"{n:<6} | {n * 50}" for n in "abcd"}


def test_a_console_that_is_gone_is_no_error() -> None:
    output = io.StringIO()
    output.close()

    Console(output).say("web", "line")

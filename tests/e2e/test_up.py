"""`chat-backend up`: everything on one machine, and nothing left of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_backend.cli.embedded import free_port
from tests.support.processes import HEALTH, Process, answers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

READY_SECONDS = 90.0
WELCOME = "chat_backend is running at"


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Process]:
    environ = {
        "PORT": str(free_port()),
        "FLOWER_PORT": str(free_port()),
        # Nobody is there: the demo model has to stand in.
        "LOCAL_LLM_BASE_URL": f"http://127.0.0.1:{free_port()}/v1",
        "DRAIN_SECONDS": "1",
    }
    command = [sys.executable, "-m", "chat_backend", "up", "--data", str(tmp_path / "data")]
    process = Process("up", command, environ, tmp_path)
    try:
        process.wait_until_ready(lambda: WELCOME in process.log, seconds=READY_SECONDS)
        yield process
    finally:
        process.kill()


def test_everything_answers_and_ctrl_c_leaves_nothing_behind(up: Process) -> None:
    with urllib.request.urlopen(up.url + HEALTH, timeout=5) as health:
        checks = json.load(health)["checks"]
    wait_until(lambda: answers(f"http://127.0.0.1:{up.environ['FLOWER_PORT']}/"), seconds=30, why="Flower answers")

    up.send(signal.SIGINT)
    status = up.wait(40)

    assert {checks[part]["status"] for part in ("database", "redis", "workers")} == {"healthy"}
    assert "DEMO MODEL" in up.log
    assert "Traceback" not in up.log
    assert status == 0
    wait_until(lambda: not up.family, seconds=3, why="nothing is left")


def test_a_worker_that_is_killed_comes_back(up: Process) -> None:
    wait_until(lambda: "ready." in up.log, seconds=30, why="the worker is there")
    for pid in up.family:
        if b"workers.app\0worker" in command_line(pid):
            os.kill(pid, signal.SIGKILL)

    wait_until(lambda: up.log.count("ready.") > 1, seconds=30, why="the worker is back")
    status = up.stop(40)

    assert "worker ended by itself (status -9); it starts again" in up.log
    assert status == 0


def test_nothing_outlives_a_killed_supervisor(up: Process) -> None:
    up.send(signal.SIGKILL)
    up.wait()

    wait_until(lambda: not up.family, seconds=30, why="nothing is left")


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""

"""The Procfile's lines as they stand, on what a platform gives: DATABASE_URL, REDIS_URL, PORT, WEB_CONCURRENCY."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from chat_backend.cli.embedded import free_port
from chat_backend.cli.token import mint
from chat_backend.config import Settings
from tests.support import processes
from tests.support.chat import Chat
from tests.support.databases import Databases
from tests.support.processes import Process
from tests.support.provider_stub import Stub
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

FLOWER_LOGIN = "ann:a long password"
TASKS = {
    "draw": 1,
    "start": 0,
    "length": 10,
    "search[value]": "",
    "order[0][column]": 0,
    "columns[0][data]": "name",
    "order[0][dir]": "asc",
}


@pytest.fixture
def platform(databases: Databases, valkey: Valkey, stub_server: Stub) -> dict[str, str]:
    return {
        "DATABASE_URL": databases.empty_postgresql().replace("postgresql+psycopg:", "postgres:"),
        "REDIS_URL": valkey.url,
        "PORT": str(free_port()),
        "FLOWER_PORT": str(free_port()),
        "WEB_CONCURRENCY": "2",
        "JWT_SECRET": "a secret of thirty-two bytes, or more",
        "LOCAL_LLM_BASE_URL": stub_server.base_url,
        "FLOWER_BASIC_AUTH": FLOWER_LOGIN,
        "DRAIN_SECONDS": "1",
    }


@pytest.fixture
def parts(platform: dict[str, str], tmp_path: Path) -> Iterator[dict[str, Process]]:
    release = processes.Process("release", ["sh", "-c", processes.procfile()["release"]], platform, tmp_path)
    assert release.wait(60) == 0, release.log
    started = {name: processes.start(name, platform, tmp_path) for name in ("web", "worker", "flower")}
    yield started
    for process in started.values():
        process.kill()


def flower_tasks(port: str, login: str = FLOWER_LOGIN) -> list[dict[str, object]]:
    address = f"http://127.0.0.1:{port}/tasks/datatable?{urlencode(TASKS)}"
    asked = urllib.request.Request(address, headers={"Authorization": f"Basic {b64encode(login.encode()).decode()}"})
    with urllib.request.urlopen(asked, timeout=10) as page:
        found: list[dict[str, object]] = json.load(page)["data"]
        return found


def test_conversations_work_and_flower_shows_how_their_tasks_ended(
    platform: dict[str, str], parts: dict[str, Process]
) -> None:
    with Chat(parts["web"].url) as chat:
        chat.http.headers["Authorization"] = f"Bearer {mint(Settings.from_environment(platform), 'alice')}"
        session = chat.new_session("stub:tokens=5")
        answer = chat.request("POST", f"/sessions/{session['id']}/process-llm", json={"prompt": "Hello"})
        fails = chat.ask(chat.new_session("stub:fail=400")["id"], "Hello")["job_id"]
        stopped = chat.ask(chat.new_session("stub:tokens=500,delay=0.1")["id"], "Hello")["job_id"]
        chat.wait_for_job(fails)
        wait_until(lambda: chat.job(stopped)["status"] == "running")
        chat.cancel(stopped)

    def ended_tasks() -> dict[str, object] | None:
        tasks = {str(task["args"]).strip("()[]',"): task["state"] for task in flower_tasks(platform["FLOWER_PORT"])}
        return tasks if len(tasks) == 3 and not {"RECEIVED", "STARTED"} & set(tasks.values()) else None

    tasks = wait_until(ended_tasks, why="Flower shows how each task has ended")
    with pytest.raises(urllib.error.HTTPError) as refused:
        flower_tasks(platform["FLOWER_PORT"], "ann:another password")
    refused.value.close()
    ends = {name: parts[name].stop() for name in ("flower", "worker", "web")}

    assert answer["success"]
    assert refused.value.code == 401
    assert parts["web"].log.count("Booting worker") == 2
    assert tasks == {answer["job_id"]: "SUCCESS", fails: "FAILURE", stopped: "REVOKED"}
    assert ends == {"flower": 0, "worker": 0, "web": 0}


@pytest.mark.parametrize("name", ["release", "web", "worker", "flower"])
def test_without_a_key_no_process_starts_and_each_says_what_to_set(name: str, tmp_path: Path) -> None:
    environ = {"DATABASE_URL": f"sqlite:///{tmp_path}/chat.db", "PORT": str(free_port())}

    process = processes.Process(name, ["sh", "-c", f"exec {processes.procfile()[name]}"], environ, tmp_path)

    assert process.wait(60) == 2, process.log
    assert "set JWT_SECRET (32 bytes or more) or JWT_JWKS_URL" in process.log
    assert "Traceback" not in process.log

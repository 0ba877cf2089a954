"""What must fit together: tasks and queues, routes and identity, schema and models, lists and documents."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from alembic import command
from flask import Flask
from sqlalchemy import create_engine, inspect

from chat_backend.cli import migrate
from chat_backend.config import Settings, settings_table
from chat_backend.domain.enums import PROVIDERS, Action, EventType
from chat_backend.domain.errors import ErrorCode
from chat_backend.models import Base
from chat_backend.protocol.commands import COMMANDS
from chat_backend.queue import names
from chat_backend.web.app import create_app
from tests.architecture.source import ROOT, modules
from tests.support.processes import procfile

# What anyone may ask without saying who they are.
OPEN = {
    "GET /api/v1/chat/health",
    "GET /api/v1/chat/client-config",
    "GET /api/v1/chat/openapi.json",
    "GET /api/v1/chat/asyncapi.json",
}
OPEN_PAGES = ("/docs", "/client")
KEY = "a-key-of-thirty-two-bytes-or-more"


@pytest.fixture
def jwt_app(sqlite_url: str) -> Flask:
    environment = {
        "AUTH_MODE": "jwt",
        "JWT_SECRET": KEY,
        "DATABASE_URL": sqlite_url,
        "REDIS_URL": "redis://127.0.0.1:1",
    }
    return create_app(Settings.from_environment(environment))


def test_every_task_name_has_a_worker_and_no_other_task_has() -> None:
    code = "import workers.process_llm, workers.app; print(*(n for n in workers.app.app.tasks if n[:7] != 'celery.'))"
    environment = {"AUTH_MODE": "dev"}

    consumed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()

    assert consumed == [names.PROCESS_LLM]


def test_every_queue_is_consumed_by_the_procfiles_worker() -> None:
    consumed = re.search(r"--queues=(\S+)", procfile()["worker"])

    assert consumed is not None
    assert consumed.group(1).split(",") == [names.QUEUE]


def test_every_route_asks_who_is_there_but_for_a_short_list(jwt_app: Flask) -> None:
    silent = set()
    with jwt_app.test_client() as client:
        for rule in jwt_app.url_map.iter_rules():
            path = re.sub(r"<[^>]+>", "018f0000-0000-7000-8000-000000000000", rule.rule)
            for method in rule.methods - {"HEAD", "OPTIONS"}:
                if rule.endpoint != "websocket" and client.open(path, method=method, buffered=True).status_code != 401:
                    silent.add(f"{method} {rule.rule}")

    assert {route for route in silent if not route.split()[1].startswith(OPEN_PAGES)} == OPEN | {"GET /"}


def test_the_migrated_schema_equals_the_models(database_url: str) -> None:
    command.check(migrate.alembic_config(database_url))


def test_the_schema_can_be_taken_down_and_up_again(database_url: str) -> None:
    command.downgrade(migrate.alembic_config(database_url), "base")
    engine = create_engine(Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": database_url}).database_url)
    left = set(inspect(engine).get_table_names())

    migrate.upgrade(database_url)

    assert left == {"alembic_version"}
    assert set(inspect(engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}
    engine.dispose()


def test_the_documented_settings_are_the_settings() -> None:
    documented = (ROOT / "docs" / "settings.md").read_text()

    assert settings_table() in documented


def test_the_documented_error_codes_are_the_error_codes() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)

    assert sorted(rows) == sorted(ErrorCode)


def test_the_documented_events_actions_and_commands_are_those_there_are() -> None:
    document = (ROOT / "docs" / "api.md").read_text()

    def listed(heading: str) -> list[str]:
        section = document.split(f"### {heading}\n")[1].split("\n#")[0]
        return re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)

    assert sorted(listed("What the server says")) == sorted(EventType)
    assert sorted(listed("What happened to a message")) == sorted(Action)
    assert sorted(listed("What a client says")) == sorted(COMMANDS)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error_code_can_be_met(code: ErrorCode) -> None:
    elsewhere = [name for name in modules() if name != "chat_backend.domain.errors"]
    sources = [(ROOT / f"{name.replace('.', '/')}.py") for name in elsewhere]
    text = "".join(path.read_text() for path in sources if path.exists())
    raised_by_type = (ROOT / "chat_backend/domain/errors.py").read_text().count(f"ErrorCode.{code.name}")

    assert f"ErrorCode.{code.name}" in text or raised_by_type


def test_the_providers_of_the_contract_are_the_registered_ones() -> None:
    registered = re.findall(r'^    "(\w+)": \w+,', (ROOT / "workers/providers/registry.py").read_text(), re.MULTILINE)

    assert registered == list(PROVIDERS)


def test_each_provider_is_one_file_and_one_line() -> None:
    folder = ROOT / "workers" / "providers"
    mentions = {
        name: {path.name for path in folder.glob("*.py") if f'"{name}"' in path.read_text()} for name in PROVIDERS
    }

    assert mentions == {name: {"registry.py", f"{name.lower()}.py"} for name in PROVIDERS}


def test_the_database_takes_every_provider_and_no_other() -> None:
    constraints = {str(found.name): found for found in Base.metadata.tables["chat_sessions"].constraints}
    allowed = re.findall(r"'(\w+)'", str(constraints["check_valid_llm_provider"].sqltext))  # type: ignore[attr-defined]

    assert allowed == list(PROVIDERS)

"""Who may know whom. Each law was broken once on purpose, to see its test fail."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.architecture.source import ROOT, imports, modules, room, uses

# Each room and the rooms of ours that it may import. What is not named here may import nothing of ours.
ARROWS = {
    "config": {"domain"},
    "domain": {"domain"},
    "schemas": {"schemas", "domain"},
    "protocol": {"protocol", "schemas", "domain"},
    "models": {"models", "domain"},
    "unit_of_work": {"models", "protocol", "row_locks", "domain"},
    "row_locks": {"domain"},
    "services": {"services", "unit_of_work", "row_locks", "models", "protocol", "domain"},
    "queue": {"queue", "config", "domain", "startup"},
    "realtime": {"realtime", "config", "protocol", "domain"},
    "bootstrap": {"config", "domain", "models", "protocol", "queue", "realtime", "row_locks", "unit_of_work"},
    "startup": {"config"},
    "logs": {"domain"},
    "demo_model": set(),
    "cli": {"cli", "bootstrap", "config", "models", "services", "startup", "domain"},
    "__main__": {"cli"},
    "web": {
        *("web", "bootstrap", "config", "domain", "models", "protocol", "realtime", "schemas", "services"),
        *("unit_of_work", "startup"),
    },
    "workers": {
        *("workers", "bootstrap", "config", "domain", "models", "protocol", "queue", "realtime", "services"),
        *("unit_of_work", "startup", "logs"),
    },
    "wsgi": {"web", "startup", "logs"},
    "celeryconfig": {"queue", "startup"},
    "chat_backend": set(),
}

# Each library that belongs to some rooms only, and those rooms.
LIBRARIES = {
    "flask": {"web", "bootstrap"},
    "flask_smorest": {"web"},
    "flask_sock": {"web"},
    "flask_cors": {"web"},
    "webargs": {"web"},
    "werkzeug": {"web"},
    "flask_sqlalchemy": {"models"},
    "simple_websocket": {"web"},
    "celery": {"queue", "workers"},
    "kombu": {"queue"},
    "redis": {"realtime"},
    "httpx": {"workers"},
    "httpx_aiohttp": {"workers"},
    "aiohttp": {"workers", "demo_model"},
    "uvloop": {"workers"},
    "sqlalchemy": {"models", "services", "unit_of_work", "row_locks", "bootstrap", "web", "cli"},
    "marshmallow": {"schemas", "protocol", "web"},
    "markdown_it": {"web"},
    "nh3": {"web"},
    "pygments": {"web"},
}


def _ours(name: str) -> set[str]:
    found = {target for target in imports(name) if target in modules()}
    return {room(target) for target in found if target != "chat_backend"}


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_knows_only_the_rooms_that_its_room_may_know(name: str) -> None:
    allowed = ARROWS[room(name)]

    assert _ours(name) <= allowed


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_a_library_is_known_only_in_its_rooms(library: str) -> None:
    found = {room(name) for name in uses(library)}

    assert found
    assert found <= LIBRARIES[library]


def test_the_domain_knows_no_library_at_all() -> None:
    foreign = {
        target.split(".")[0]
        for name in modules()
        if room(name) == "domain"
        for target in imports(name)
        if target.split(".")[0] not in sys.stdlib_module_names
    }

    assert foreign == {"chat_backend"}


def test_only_the_providers_speak_http() -> None:
    assert uses("httpx") == {name for name in uses("httpx") if name.startswith("workers.providers.")}


def _reads_environment(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb") and _is_os(node.value)
        for node in ast.walk(tree)
    )


def _is_os(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "os"


def test_only_config_reads_the_environment_and_the_command_line_hands_it_on() -> None:
    readers = {name for name, tree in modules().items() if _reads_environment(tree)}

    assert readers == {"chat_backend.config", "chat_backend.cli.main"}


@pytest.mark.parametrize(
    ("started", "unwanted"),
    [
        ("wsgi", ("workers", "httpx", "aiohttp", "uvloop")),
        ("workers.process_llm", ("chat_backend.web", "flask_sock", "flask_smorest", "simple_websocket", "gunicorn")),
    ],
)
def test_starting_one_process_loads_nothing_of_the_other(started: str, unwanted: tuple[str, ...]) -> None:
    code = f"import {started}, sys; print(*sys.modules)"
    environment = {"AUTH_MODE": "dev", "DATABASE_URL": "sqlite:////tmp/never-opened.db"}

    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()

    assert started in loaded
    assert [name for name in loaded if name.startswith(unwanted)] == []

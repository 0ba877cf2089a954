"""What `up` makes of the environment, before it starts anything."""

from __future__ import annotations

import os
import socket
from argparse import Namespace
from pathlib import Path

import pytest

from chat_backend.cli import up
from chat_backend.config import ConfigError, Settings


def test_ones_own_machine_needs_no_settings(tmp_path: Path) -> None:
    settings = Settings.from_environment(up._defaults({}, tmp_path))

    assert settings.is_dev
    assert (settings.bind_host, settings.port) == ("127.0.0.1", 8000)
    assert settings.database_url == f"sqlite:///{tmp_path}/chat.db"


def test_what_is_set_stays(tmp_path: Path) -> None:
    environ = up._defaults({"AUTH_MODE": "jwt", "DATABASE_URL": "postgres://h/d", "OTHER": ""}, tmp_path)

    assert (environ["AUTH_MODE"], environ["DATABASE_URL"], environ["OTHER"]) == ("jwt", "postgres://h/d", "")


def test_blank_means_not_set(tmp_path: Path) -> None:
    assert up._defaults({"AUTH_MODE": " "}, tmp_path)["AUTH_MODE"] == "dev"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "chat.example"])
def test_other_machines_are_not_believed_unless_that_is_said(tmp_path: Path, host: str) -> None:
    arguments = Namespace(data=tmp_path / "data")

    with pytest.raises(ConfigError) as refused:
        up.run(arguments, {"HOST": host, "AUTH_MODE": " "})

    assert "AUTH_MODE=jwt" in str(refused.value)
    assert not arguments.data.exists()


@pytest.mark.parametrize(
    "environ",
    [
        {"HOST": "127.0.0.1"},
        {"HOST": "localhost"},
        {"HOST": "0.0.0.0", "AUTH_MODE": "jwt", "JWT_SECRET": "s" * 32},
        {"HOST": "0.0.0.0", "AUTH_MODE": "dev"},
    ],
)
def test_ones_own_machine_and_a_named_mode_are_taken_at_their_word(environ: dict[str, str]) -> None:
    settings = Settings.from_environment({"AUTH_MODE": "dev"} | environ)

    up._refuse_open_house(settings, mode_is_named="AUTH_MODE" in environ)


def test_our_own_programs_come_first(tmp_path: Path) -> None:
    path = up._defaults({"PATH": "/somewhere"}, tmp_path)["PATH"].split(os.pathsep)

    assert (Path(path[0]) / "gunicorn").exists()
    assert path[1:] == ["/somewhere"]


def test_flower_moves_aside_unless_its_port_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        settings = Settings.from_environment({"AUTH_MODE": "dev", "FLOWER_PORT": str(taken)})

        moved = up._flower_port({}, settings)

    assert moved["FLOWER_PORT"] != str(taken)


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("10.0.0.1", "10.0.0.1")])
def test_the_address_shown_is_one_that_can_be_opened(host: str, shown: str) -> None:
    assert up._shown(host) == shown


def test_the_first_request_fits_the_mode() -> None:
    dev = Settings.from_environment({"AUTH_MODE": "dev"})
    jwt = Settings.from_environment({"JWT_SECRET": "s" * 32})

    assert "X-User-ID" in up._welcome("http://x", dev)
    assert "Authorization: Bearer" in up._welcome("http://x", jwt)


@pytest.mark.parametrize(
    ("health", "expected"),
    [(None, False), ({}, False), ({"checks": {"workers": {"status": "healthy"}}}, True), ({"checks": None}, False)],
)
def test_a_worker_is_there_when_health_says_so(health: dict[str, object] | None, expected: bool) -> None:
    assert up._has_worker(health) is expected

"""The embedded Redis, as it is started by `up` and by tests."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import redis

from chat_backend.cli import embedded
from tests.support.valkey import Valkey


def test_it_answers_only_with_its_password(valkey: Valkey) -> None:
    with redis.Redis(port=valkey.port, retry=None) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_its_configuration_is_nobody_elses(tmp_path: Path) -> None:
    embedded.prepare(tmp_path)

    assert stat.S_IMODE((tmp_path / "valkey.conf").stat().st_mode) == 0o600


def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    server.start()
    with server.client() as client:
        client.set("key", "value")

    server.restart()

    with server.client() as client:
        assert client.get("key") == b"value"
    server.stop()


def test_it_refuses_new_data_rather_than_drop_what_it_has(valkey: Valkey) -> None:
    with valkey.client() as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_server_that_is_not_there_does_not_answer(tmp_path: Path) -> None:
    assert not embedded.prepare(tmp_path).answers()


def test_a_frozen_server_does_not_answer(valkey: Valkey, tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    server.start()
    server.freeze()

    answered = server._server.answers()

    server.kill()
    assert not answered

"""The command line: what it prints, and how it ends."""

from __future__ import annotations

import socket
from pathlib import Path

import jwt
import pytest

from chat_backend.cli import up
from chat_backend.cli.main import main
from chat_backend.config import settings_table
from tests.support.processes import procfile

SECRET = "s" * 32
DEV = {"AUTH_MODE": "dev"}


def test_settings_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"], {}) == 0

    assert capsys.readouterr().out == settings_table()


def test_a_token_says_who_and_for_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"JWT_SECRET": SECRET, "JWT_ISSUER": "us", "JWT_AUDIENCE": "chat"}

    status = main(["token", "--user", "alice", "--role", "admin", "--hours", "2"], environ)

    claims = jwt.decode(capsys.readouterr().out.strip(), SECRET, algorithms=["HS256"], audience="chat", issuer="us")
    assert (status, claims["sub"], claims["roles"], claims["exp"] - claims["iat"]) == (0, "alice", ["admin"], 7200)


def test_a_plain_token_has_no_roles(capsys: pytest.CaptureFixture[str]) -> None:
    main(["token", "--user", "alice"], {"JWT_SECRET": SECRET})

    assert set(jwt.decode(capsys.readouterr().out.strip(), SECRET, algorithms=["HS256"])) == {"sub", "iat", "exp"}


@pytest.mark.parametrize("user", ["alice ", "Zoe\u0308", "a\u200bb", ""])
def test_a_token_is_for_a_user_id(user: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["token", "--user", user], {"JWT_SECRET": SECRET})

    assert ended.value.code == 2
    assert "form NFC" in capsys.readouterr().err


@pytest.mark.parametrize("hours", ["0", "-1", "soon", "nan", "1000000"])
def test_a_token_is_good_for_a_sensible_time(hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["token", "--user", "alice", "--hours", hours], {"JWT_SECRET": SECRET})

    assert ended.value.code == 2
    assert "number of hours" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "environ", "sentence"),
    [
        (["token", "--user", "alice"], DEV, "JWT_SECRET is not set"),
        (["migrate"], {}, "AUTH_MODE is jwt, but there is no key"),
        (["migrate"], DEV | {"DATABASE_URL": "mysql://x"}, "DATABASE_URL must be"),
        (["up"], {"PORT": "none"}, "PORT must be a whole number"),
        (["up"], {"AUTH_MODE": "jwt"}, "AUTH_MODE is jwt, but there is no key"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_status_2(
    argv: list[str], environ: dict[str, str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(argv, environ)

    complaint = capsys.readouterr().err
    assert status == 2
    assert complaint.startswith(sentence)
    assert len(complaint.splitlines()) == 1


@pytest.mark.parametrize("name", ["PORT", "FLOWER_PORT"])
def test_up_refuses_a_taken_port(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        environ = {"PORT": str(up.embedded.free_port())} | {name: str(port)}

        status = main(["up", "--data", str(tmp_path)], environ)

    assert status == 2
    assert f"Port {port} can't be used" in capsys.readouterr().err


def test_up_refuses_a_folder_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with up._alone_in(tmp_path):
        status = main(["up", "--data", str(tmp_path)], {"PORT": str(up.embedded.free_port())})

    assert status == 2
    assert "Another `chat-backend up`" in capsys.readouterr().err


def test_up_runs_the_lines_of_the_procfile() -> None:
    lines = procfile()

    started = {"web": up.WEB, "worker": up.WORKER, "flower": up.FLOWER}

    assert started == {name: tuple(lines[name].split()) for name in started}


@pytest.mark.parametrize("argv", [[], ["unknown"], ["token"]])
def test_what_is_not_a_command_is_wrong_use(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv, {})

    assert ended.value.code == 2
    assert "usage: chat-backend" in capsys.readouterr().err

"""`chat-backend export` over a real database."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from chat_backend.bootstrap import connect
from chat_backend.cli.main import main
from chat_backend.config import Settings
from chat_backend.domain.user import User
from chat_backend.services import chat_sessions, messages
from tests.support.processes import ROOT

# What Python would otherwise do by itself for the locale C.
ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NOBODY = "01a205e1-0000-7000-8000-000000000000"


def fill(database_url: str, user: str, texts: list[str]) -> str:
    backend = connect(Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": database_url}))
    with backend.unit_of_work() as uow:
        chat, _ = chat_sessions.make(
            uow, User(user), llm_provider="LOCAL", llm_model="m", title="Notes", settings={"a": 1}
        )
    for text in texts:
        with backend.unit_of_work() as uow:
            messages.send(uow, chat.id, User(user), content=text)
    backend.close()
    return str(chat.id)


def test_a_session_is_exported_whole(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    session_id = fill(database_url, "alice", ["One", "Zwei, 三"])

    status = main(["export", "--session", session_id], {"DATABASE_URL": database_url})

    exported = json.loads(capsys.readouterr().out)
    assert status == 0
    assert (exported["id"], exported["title"], exported["settings"]) == (session_id, "Notes", {"a": 1})
    assert exported["participants"] == [{"user_id": "alice", "role": "owner"}]
    assert [(m["seq"], m["content"]) for m in exported["messages"]] == [(1, "One"), (2, "Zwei, 三")]


def test_every_session_of_a_user_is_a_line(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    mine = [fill(sqlite_url, "alice", ["Hello"]) for _ in range(2)]
    fill(sqlite_url, "bob", ["Hello"])

    main(["export", "--user", "alice"], {"DATABASE_URL": sqlite_url})

    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == mine


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", **ASCII}, {"PYTHONIOENCODING": "latin-1"}])
def test_output_is_utf8_in_any_locale(sqlite_url: str, locale: dict[str, str]) -> None:
    session_id = fill(sqlite_url, "Zoë", ["Größe 三 🌍"])

    done = subprocess.run(
        [sys.executable, "-m", "chat_backend", "export", "--session", session_id, "--format", "text"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": sqlite_url, **locale},
        capture_output=True,
        check=True,
    )

    assert "Größe 三 🌍" in done.stdout.decode("utf-8")


def test_text_is_for_people(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    session_id = fill(sqlite_url, "alice", ["Hello"])

    main(["export", "--session", session_id, "--format", "text"], {"DATABASE_URL": sqlite_url})

    shown = capsys.readouterr().out
    assert "# Notes" in shown
    assert "1. alice" in shown


def test_a_session_that_is_not_there_is_status_1(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["export", "--session", NOBODY], {"DATABASE_URL": sqlite_url})

    assert (status, capsys.readouterr()) == (1, ("", "There is no such session.\n"))

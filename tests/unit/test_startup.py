"""What an operator is told at each start."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from chat_backend.config import Settings
from chat_backend.startup import warn, warning_of
from tests.support.processes import ROOT


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({"AUTH_MODE": "dev"}, logging.WARNING),
        ({"AUTH_MODE": "dev", "HOST": "::1"}, logging.WARNING),
        ({"AUTH_MODE": "dev", "HOST": "0.0.0.0"}, logging.CRITICAL),
        ({"AUTH_MODE": "dev", "HOST": "10.0.0.1"}, logging.CRITICAL),
    ],
)
def test_dev_mode_warns_each_time_and_louder_where_others_can_ask(
    environ: dict[str, str], level: int, caplog: pytest.LogCaptureFixture
) -> None:
    warn(Settings.from_environment(environ))

    assert [record.levelno for record in caplog.records] == [level]


def test_jwt_mode_has_nothing_to_warn_of() -> None:
    assert warning_of(Settings.from_environment({"JWT_SECRET": "s" * 32})) == ""


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_processes_write_utf8_in_any_locale(locale: dict[str, str]) -> None:
    code = "import sys; from chat_backend.startup import settings_or_exit; settings_or_exit()\n"
    code += "for stream in (sys.stdout, sys.stderr): print(chr(246), chr(0x4E09), file=stream)"

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "AUTH_MODE": "dev", **locale},
        capture_output=True,
        check=True,
    )

    assert [stream.decode("utf-8").strip() for stream in (done.stdout, done.stderr)] == ["ö 三"] * 2

"""What an operator is told at each start."""

from __future__ import annotations

import logging

import pytest

from chat_backend.config import Settings
from chat_backend.startup import warn, warning_of


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

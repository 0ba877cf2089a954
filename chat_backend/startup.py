"""How a process begins: with settings that were checked."""

from __future__ import annotations

import sys

from chat_backend.config import ConfigError, Settings

WRONG_USE = 2


def settings_or_exit() -> Settings:
    """Read the settings, or end the process: one sentence on stderr, status 2.

    For the files that servers import (gunicorn's, Celery's): an exception there would be a traceback.
    """
    try:
        return Settings.from_environment()
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(WRONG_USE) from None

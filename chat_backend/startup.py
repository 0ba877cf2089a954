"""How a process begins: with settings that were checked."""

from __future__ import annotations

import io
import logging
import sys

from chat_backend.config import ConfigError, Settings

log = logging.getLogger(__name__)

WRONG_USE = 2


def write_utf8() -> None:
    """Write UTF-8 to stdout and stderr in any locale; to be called once, when a process starts."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def settings_or_exit() -> Settings:
    """Read the settings, or end the process: one sentence on stderr, status 2.

    For the files that servers import (gunicorn's, Celery's): an exception there would be a traceback.
    """
    write_utf8()
    try:
        return Settings.from_environment()
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(WRONG_USE) from None


def warning_of(settings: Settings) -> str:
    """Return what an operator must be told of the mode at each start; nothing in `jwt` mode."""
    if not settings.is_dev:
        return ""
    if settings.is_on_loopback:
        return "AUTH_MODE is dev: whoever asks is believed, which is for one's own machine."
    return (
        f"ANYONE WHO REACHES THIS MACHINE CAN BE ANYONE: AUTH_MODE is dev, and HOST ({settings.bind_host}) is not "
        "loopback. Set AUTH_MODE=jwt, or HOST=127.0.0.1."
    )


def warn(settings: Settings) -> None:
    """Log what an operator must be told."""
    if warning := warning_of(settings):
        level = logging.WARNING if settings.is_on_loopback else logging.CRITICAL
        log.log(level, warning, extra={"action": "start"})

"""`chat-backend flower`: Flower, which shows the tasks, for those who may see them."""

from __future__ import annotations

import os
import secrets
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import NoReturn

from chat_backend.cli.embedded import LOOPBACK
from chat_backend.config import Settings

HELP = "Start Flower on loopback; in jwt mode it asks for FLOWER_BASIC_AUTH."
COMMAND = ("celery", "-A", "workers.app", "flower", f"--address={LOOPBACK}")


def add_arguments(parser: ArgumentParser) -> None:
    """Everything is a setting."""


def run(arguments: Namespace, environ: Mapping[str, str]) -> NoReturn:
    """Become Flower. Raises ConfigError where a setting is wrong."""
    os.execvpe(COMMAND[0], COMMAND, guarded(environ))  # noqa: S606 - no shell is wanted


def guarded(environ: Mapping[str, str]) -> dict[str, str]:
    """Return Flower's environment; Flower itself reads FLOWER_BASIC_AUTH, which no command line shows.

    Where nobody was named in jwt mode the door is there and has no key.
    """
    settings = Settings.from_environment(environ)
    if settings.is_dev or settings.flower_basic_auth:
        return dict(environ)
    print("Flower lets nobody in: set FLOWER_BASIC_AUTH=user:password.", file=sys.stderr)
    return {**environ, "FLOWER_BASIC_AUTH": f"nobody:{secrets.token_urlsafe(32)}"}

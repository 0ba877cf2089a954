"""The command line: `chat-backend COMMAND`. A command is one file and one line below."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

from chat_backend.cli import doctor, export, flower, migrate, settings, token, up
from chat_backend.config import ConfigError
from chat_backend.startup import WRONG_USE, write_utf8

# Each has HELP, add_arguments(parser), and run(arguments, environ), which returns the exit status.
COMMANDS: dict[str, ModuleType] = {
    "up": up,
    "migrate": migrate,
    "token": token,
    "settings": settings,
    "flower": flower,
    "doctor": doctor,
    "export": export,
}


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 where it failed, 2 where it was asked wrongly."""
    write_utf8()
    arguments = _parser().parse_args(argv)
    # Only handed on: to Settings, and to the processes that `up` starts.
    environ = os.environ if environ is None else environ
    try:
        status: int = COMMANDS[arguments.command].run(arguments, environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return WRONG_USE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chat-backend", description="Run and look after a chat backend.")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(subparsers.add_parser(name, help=command.HELP, description=command.HELP))
    return parser

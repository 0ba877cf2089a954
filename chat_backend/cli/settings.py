"""`chat-backend settings`: every setting, as docs/settings.md shows it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from chat_backend.config import settings_table

HELP = "Print every setting with its default and meaning, as a Markdown table."


def add_arguments(parser: ArgumentParser) -> None:
    """This command has none."""


def run(arguments: Namespace, environ: Mapping[str, str]) -> int:
    """Print the table of settings."""
    print(settings_table(), end="")
    return 0

"""`chat-backend export`: chat sessions as JSON, one a line, or as text to read."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from chat_backend.bootstrap import connect
from chat_backend.config import ConfigError, Settings
from chat_backend.domain.errors import Unavailable
from chat_backend.services import exports

HELP = "Print chat sessions with all their messages; status 1 where there is no such session."


def add_arguments(parser: ArgumentParser) -> None:
    """Say which sessions, and in which form."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--session", type=_id, metavar="ID", help="one session")
    which.add_argument("--user", help="every session a user takes part in")
    which.add_argument("--all", action="store_true", help="every session")
    parser.add_argument("--format", choices=["json", "text"], default="json", help="json: a session a line (default)")


def run(arguments: Namespace, environ: Mapping[str, str]) -> int:
    """Print what is asked for, only reading. Raises ConfigError where the database can't be used."""
    settings = Settings.from_environment(environ, serves=False)
    backend = connect(settings)
    found = 0
    try:
        with backend.reading() as session:
            ids = [arguments.session] if arguments.session else exports.sessions_of(session, arguments.user)
            for session_id in ids:
                found += _print(session, session_id, as_text=arguments.format == "text")
    except Unavailable as error:
        raise ConfigError("The database at DATABASE_URL can't be used, or has no tables yet.") from error
    finally:
        backend.close()
    if arguments.session and not found:
        print("There is no such session.", file=sys.stderr)
        return 1
    return 0


def _print(session: Session, session_id: UUID, *, as_text: bool) -> int:
    chat = exports.export(session, session_id)
    if chat is None:
        return 0
    messages = exports.messages_of(session, session_id)
    for line in _text(chat, messages) if as_text else [json.dumps(chat | {"messages": list(messages)})]:
        print(line)
    return 1


def _text(chat: dict[str, Any], messages: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield f"# {chat['title'] or chat['id']}"
    yield f"{chat['llm_provider']} {chat['llm_model']}, {chat['created_at']}"
    for message in messages:
        who = message["user_id"] or message["llm_model"] or message["role"]
        yield f"\n## {message['seq']}. {who}, {message['created_at']}\n\n{message['content']}"
    yield ""


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError("must be the id of a session") from None

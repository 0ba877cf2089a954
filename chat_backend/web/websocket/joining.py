"""How a newcomer gets into a feed: greeting, what it has missed, what is being written, then live."""

from __future__ import annotations

from collections.abc import Iterator

from chat_backend.domain.cursor import Cursor
from chat_backend.domain.errors import ChatError, ErrorCode, NotFound
from chat_backend.services.access import no_such
from chat_backend.web.websocket.connection import NO_PARTICIPANT, NO_SESSION, TRY_AGAIN, Connection
from chat_backend.web.websocket.feed import Feed
from chat_backend.web.websocket.reader import Reader

JOIN_TRIES = 5


def attach(
    reader: Reader, feed: Feed, connection: Connection, *, since: Cursor | None, online: set[str]
) -> Iterator[None]:
    """Show a connection what it has missed, in portions, each when asked for; then let it go live.

    Raises NotFound, Unavailable; a connection that was greeted before is told and closed instead.
    """
    try:
        yield from _attach(reader, feed, connection, since=since, online=online)
    except ChatError as error:
        if not connection.greeted:
            raise
        connection.close(*_why(reader, feed, error))


def _attach(
    reader: Reader, feed: Feed, connection: Connection, *, since: Cursor | None, online: set[str]
) -> Iterator[None]:
    if since is not None:
        connection.cursor = since
        yield from _replay(reader, feed, connection, online=online)
    elif feed.offset < connection.admitted_at:
        reader.refresh(feed)
    if connection.id in feed.connections or connection.closing:
        return
    if not feed.attach_afresh(connection, online=online):
        raise no_such("chat session")


def _replay(reader: Reader, feed: Feed, connection: Connection, *, online: set[str]) -> Iterator[None]:
    """Let a connection go live behind all that it has missed; where that can't be replayed, do nothing."""
    tries = 0
    while tries < JOIN_TRIES and not connection.closing:
        # Each time: a replay takes as long as its viewer likes, who may have been removed meanwhile.
        log = reader.look(feed, connection.user, since=connection.cursor)
        if log.events is None:
            break
        if not log.reached_by(connection.offset):
            feed.replay(connection, log.events, online=online)
            yield
        elif feed.attach(connection, log.events, online=online):
            return
        else:
            tries += 1  # the log ran away meanwhile
    if connection.greeted:
        connection.close(TRY_AGAIN, ErrorCode.TOO_SLOW, "The log is faster than you: come back.")


def _why(reader: Reader, feed: Feed, error: ChatError) -> tuple[int, ErrorCode, str]:
    """Return the close code, the error code and the words for who can't be shown the rest."""
    if not isinstance(error, NotFound):
        return TRY_AGAIN, error.code, error.message
    if reader.cursors([feed.session_id]):
        return NO_PARTICIPANT, ErrorCode.NOT_A_PARTICIPANT, "You are no longer a participant."
    return NO_SESSION, ErrorCode.NOT_FOUND, "The chat session was deleted."

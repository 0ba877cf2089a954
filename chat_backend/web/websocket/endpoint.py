"""Where a socket comes in: who is it, may it enter, and then frame after frame until it ends."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import cast
from uuid import UUID

from flask import Flask, current_app, request
from flask_sock import Sock
from simple_websocket import ConnectionClosed
from simple_websocket.ws import Server
from werkzeug.datastructures import Headers

from chat_backend.config import Settings
from chat_backend.domain import limits
from chat_backend.domain.cursor import Cursor
from chat_backend.domain.errors import (
    ChatError,
    ErrorCode,
    Forbidden,
    InvalidInput,
    MalformedRequest,
    NotFound,
    Restarting,
    TooMany,
    Unauthenticated,
)
from chat_backend.services.access import let_in, no_such
from chat_backend.web.auth import identify_stream
from chat_backend.web.context import settings
from chat_backend.web.headers import LOOPBACK
from chat_backend.web.rate_limits import rate_limits, refusals_counted
from chat_backend.web.turns import Turns, end_turn
from chat_backend.web.websocket.connection import (
    CLOSING_SECONDS,
    NO_PARTICIPANT,
    NO_SESSION,
    POLICY,
    RESTARTING,
    TOO_LARGE,
    TRY_AGAIN,
    UNAUTHENTICATED,
    Connection,
    refusal,
)
from chat_backend.web.websocket.dispatch import Dispatch
from chat_backend.web.websocket.flood import FrameRate, byte_rate
from chat_backend.web.websocket.hub import Hub
from chat_backend.web.websocket.outbox import Outbox
from chat_backend.web.websocket.viewer_socket import POLL_SECONDS, ViewerSocket, stand_in

log = logging.getLogger(__name__)

PATH = "/api/v1/chat/sessions/<session_id>/websocket"
KEY_BYTES = 16
FLOODED_SECONDS = 1.0
_CODES: list[tuple[type[ChatError], int]] = [
    (Unauthenticated, UNAUTHENTICATED),
    (Forbidden, NO_PARTICIPANT),
    (NotFound, NO_SESSION),
    (InvalidInput, POLICY),
    (TooMany, TRY_AGAIN),
    (Restarting, RESTARTING),
]


def install_socket(app: Flask) -> None:
    """Add the socket's route to the app."""
    app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": limits.FRAME_BYTES}
    app.before_request(_prepare)
    Sock(app).route(PATH, endpoint="websocket")(websocket)


def _prepare() -> None:
    """Before the upgrade: refuse foreign pages, and put our socket in the library's hands."""
    if request.endpoint == "websocket":
        with refusals_counted(request):
            check_origin(request.headers.get("Origin"), request.host, settings())
            check_handshake(request.headers)
        stand_in(request.environ, frames_per_second=settings().frames_per_second)


def check_origin(origin: str | None, host: str, settings: Settings) -> None:
    """Raise Forbidden for a page of a foreign origin. Clients that are no browsers send none."""
    if origin is None or origin.lower().rstrip("/") in settings.allowed_origins:
        return
    same = origin.lower() in {f"http://{host}".lower(), f"https://{host}".lower()}
    if same or (settings.is_dev and LOOPBACK.match(origin)):
        return
    raise Forbidden("This origin is not allowed.", code=ErrorCode.ORIGIN_NOT_ALLOWED)


def check_handshake(headers: Headers) -> None:
    """Raise MalformedRequest where a client asks for an upgrade that the library would stumble over."""
    try:
        key = base64.b64decode(headers.get("Sec-WebSocket-Key", ""), validate=True)
    except ValueError:
        key = b""
    named = bool(headers.get("Host"))
    if len(key) != KEY_BYTES or headers.get("Sec-WebSocket-Version", "") != "13" or not named:
        raise MalformedRequest("Not a WebSocket handshake of version 13.")


def websocket(ws: Server, session_id: str) -> None:
    """Serve one WebSocket until it ends."""
    hub: Hub = current_app.extensions["chat_hub"]
    hub.start()
    viewer = cast(ViewerSocket, ws.sock)
    ws.ws.events = viewer.counted(ws.ws.events)
    viewer.unread = ws.input_buffer
    viewer.wake = ws.event.set
    if viewer.closed:
        ws.event.set()
    try:
        connection, since = admit(hub, session_id, viewer.outbox)
        viewer.flooded = lambda: _flooded(connection, viewer)
        _serve(hub, connection, ws, since=since)
    except ChatError as error:
        _refuse(hub, ws, viewer, error, session_id)
    except Exception:  # a stack trace in HTTP is nothing to send on a socket
        log.exception("a connection failed", extra={"action": "websocket"})
        _refuse(hub, ws, viewer, ChatError("Something went wrong on our side."), session_id)
    _part(hub, ws, viewer)


def admit(hub: Hub, session_id: str, outbox: Outbox) -> tuple[Connection, Cursor | None]:
    """Return a connection for who is asking, not yet joined, and what it has seen of the log.

    Raises Unauthenticated, TooMany, NotFound, InvalidInput, Unavailable.
    """
    with refusals_counted(request):
        session = canonical_id(session_id)
    user = identify_stream(request, session, hub.backend)
    with hub.backend.reading() as reading:
        # Offset and role are of one moment: whoever is removed after it is found when the connection goes live.
        chat, role = let_in(reading, session, user)
    since = read_since(request.headers.get("Last-Event-ID") or request.args.get("since"))
    connection = Connection(
        session,
        user,
        outbox,
        role=role,
        deltas=request.args.get("deltas") == "1",
        outbox_bytes=hub.settings.outbox_bytes,
        admitted_at=chat.last_offset,
    )
    return connection, since


def in_turns(replay: Iterator[None], connection: Connection) -> Iterator[None]:
    """Take a place of the user's concurrency limit for each part of a replay: it costs as much as a request."""
    turns: Turns = current_app.extensions["turns"]

    def parts() -> Iterator[None]:
        while True:
            try:
                end = turns.take(connection.user.id)
            except TooMany as error:
                connection.close(TRY_AGAIN, error.code, error.message)
                return
            try:
                is_over = next(replay, True)
            finally:
                end()
            if is_over:
                return
            yield

    return parts()


def canonical_id(text: str) -> UUID:
    """Return the id in a path. Raises NotFound for what is none."""
    try:
        found = UUID(text)
    except ValueError:
        raise no_such("chat session") from None
    if str(found) != text.lower():
        raise no_such("chat session")
    return found


def read_since(text: str | None) -> Cursor | None:
    """Return what a client has seen of the log: a cursor, or a bare offset. Raises InvalidInput."""
    if text is None or text == "":
        return None
    try:
        return Cursor.read(text)
    except ValueError:
        raise InvalidInput("Must be the cursor or the offset of an event.", field="since") from None


def _serve(hub: Hub, connection: Connection, ws: Server, *, since: Cursor | None) -> None:
    dispatch = Dispatch(hub, connection, rate_limits())
    with hub.feed(connection.session_id) as feed:
        replay = hub.join(feed, connection, since=since)
        end_turn()
        try:
            for _ in in_turns(replay, connection):
                _let_read(connection, ws)
            _listen(connection, ws, dispatch)
        except ConnectionClosed:
            log.debug("connection ended", extra={"action": "websocket", "connection_id": connection.id})
        finally:
            dispatch.gone()
            hub.leave(feed, connection)


def _let_read(connection: Connection, ws: Server) -> None:
    """Wait until the viewer has read what was replayed, or is gone; one that does not read is closed by the hub."""
    while ws.connected and not connection.closing and not connection.outbox.idle:
        connection.outbox.pump()
        time.sleep(POLL_SECONDS)


def _listen(connection: Connection, ws: Server, dispatch: Callable[[str | bytes], None]) -> None:
    per_second = settings().frames_per_second
    rate, bytes_rate = FrameRate(per_second), byte_rate(per_second)
    viewer = cast(ViewerSocket, ws.sock)
    while True:
        data = ws.receive()
        viewer.taken()
        if connection.closing or data is None:
            continue
        size = _size(data)
        if not (rate.allows() and bytes_rate.allows(size)):
            _flooded(connection, viewer)
        elif size > limits.FRAME_BYTES:
            # The library has counted characters.
            connection.close(TOO_LARGE, ErrorCode.PAYLOAD_TOO_LARGE, "The frame is too large.")
        else:
            dispatch(data)


def _size(data: str | bytes) -> int:
    return len(data.encode() if isinstance(data, str) else data)


def _flooded(connection: Connection, viewer: ViewerSocket) -> None:
    # It is not read meanwhile, and has to wait before it can come back: to let someone in is dearer than any frame.
    time.sleep(FLOODED_SECONDS)
    connection.close(POLICY, ErrorCode.RATE_LIMITED, "Too many frames a second.")
    # What else it says is not even parsed: a flood would go on costing until its viewer has closed.
    viewer.end_reading()


def _refuse(hub: Hub, ws: Server, viewer: ViewerSocket, error: ChatError, session_id: str) -> None:
    """Say why in one frame, then close."""
    end_turn()
    code = next((code for kind, code in _CODES if isinstance(error, kind)), TRY_AGAIN)
    viewer.outbox.push(refusal(error, session_id))
    viewer.outbox.finish(code, error.message)
    if isinstance(error, TooMany):
        return  # who comes too often does not hold a thread as well; the words are on their way already
    with hub.lingering() as allowed, suppress(ConnectionClosed):
        deadline = time.monotonic() + (CLOSING_SECONDS if allowed else 0)
        while (left := deadline - time.monotonic()) > 0:
            ws.receive(timeout=left)
            viewer.taken()


def _part(hub: Hub, ws: Server, viewer: ViewerSocket) -> None:
    """Leave the socket to the web server in a state in which its last words arrive."""
    viewer.end_reading()
    if not ws.connected:
        # To a client's close it is the library that answers, after it has told us.
        ws.thread.join(CLOSING_SECONDS)
        with hub.lingering() as allowed:
            viewer.linger(CLOSING_SECONDS if allowed else 0)
    viewer.outbox.drop()

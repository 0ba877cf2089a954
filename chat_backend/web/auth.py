"""Who is asking."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from uuid import UUID

from flask import Flask, Request, current_app, g, request

from chat_backend.bootstrap import Backend
from chat_backend.config import DEV_USER
from chat_backend.domain.errors import TooMany, Unauthenticated, Unavailable
from chat_backend.domain.user import USER_ID_RULE, User, is_user_id
from chat_backend.services import tickets
from chat_backend.web.context import settings
from chat_backend.web.rate_limits import rate_limits
from chat_backend.web.tokens import Tokens
from chat_backend.web.turns import begin_turn

# The only endpoints that anyone may ask.
HEALTH = "service.health"
DOCUMENTS = ("api-docs.openapi_json", "documents.asyncapi", "swagger_ui.show")
PAGE = ("page.show", "page.show_file", "page.show_file_of_edition", "service.client_config")
OPEN = frozenset({HEALTH, *DOCUMENTS, *PAGE})
# How many refusals are slow at once: of threads there are few, of greenlets many.
HELD_REFUSALS, MANY_HELD_REFUSALS = 8, 1000
# These ask by themselves (identify_stream), once they can answer in their own way.
STREAMS = ("/websocket", "/events")


def install(app: Flask) -> None:
    """Ask for every route who is there, before anything else is done."""
    of = app.extensions["backend"].settings
    app.extensions["tokens"] = Tokens(of)
    app.extensions["held_refusals"] = BoundedSemaphore(HELD_REFUSALS if of.is_threaded else MANY_HELD_REFUSALS)
    app.before_request(_ask)


def current_user() -> User:
    """Return who asks in this request."""
    user: User = g.user
    return user


def identify_http(request: Request) -> User:
    """Return who asks, by header. Raises Unauthenticated."""
    if settings().is_dev:
        return _trusted(request.headers.get("X-User-ID"))
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("A bearer token is needed.")
    tokens: Tokens = current_app.extensions["tokens"]
    return tokens.read(token.strip())


def identify_stream(request: Request, session_id: UUID, backend: Backend) -> User:
    """Return who opens a stream: by `?ticket=` (used up), in dev mode by `?user_id=`, else by header.

    It is their turn until the stream is open (`end_turn`). Raises Unauthenticated, TooMany, and Unavailable where a
    ticket can't be looked up.
    """
    ticket = request.args.get("ticket")
    if ticket is None:
        return _in_turn(lambda: _who_streams(request, backend))
    # Before the ticket is looked up, for that is dearer than anything else a stranger can ask for.
    rate_limits().request(request, None)
    user = _by_ticket(ticket, session_id, backend)
    begin_turn(user)
    with _slow_refusals():
        rate_limits().command(user)
    return user


def _who_streams(request: Request, backend: Backend) -> User:
    user_id = request.args.get("user_id")
    if user_id is not None and backend.settings.is_dev:
        return _known(user_id)
    return identify_http(request)


def _ask() -> None:
    rule = request.url_rule
    asks_first = request.method == "OPTIONS"  # a browser, for its page: without a token
    if rule is not None and (rule.endpoint == HEALTH or (rule.rule.endswith(STREAMS) and not asks_first)):
        return
    if asks_first or rule is None or rule.endpoint in OPEN:
        rate_limits().request(request, None)
    else:
        g.user = _in_turn(lambda: identify_http(request))


def _in_turn(identify: Callable[[], User]) -> User:
    """Find out who asks, wait for their turn, and count the request. Raises TooMany."""
    try:
        user = identify()
    except (Unauthenticated, Unavailable):
        rate_limits().request(request, None)
        raise
    begin_turn(user)
    with _slow_refusals():
        rate_limits().request(request, user)
    return user


@contextmanager
def _slow_refusals() -> Iterator[None]:
    """In their turn: a flood that is refused at once comes back at once, and takes the processor from others.

    Where many are held already they are answered at once, for each of them holds a thread of everyone's.
    """
    held: BoundedSemaphore = current_app.extensions["held_refusals"]
    try:
        yield
    except TooMany:
        if held.acquire(blocking=False):
            try:
                time.sleep(settings().refused_seconds)
            finally:
                held.release()
        raise


def _trusted(header: str | None) -> User:
    if header is None:
        return User(DEV_USER)
    try:
        # WSGI hands headers over as Latin-1; clients write UTF-8, as they do in `?user_id=`.
        return _known(header.encode("latin-1").decode())
    except ValueError:
        raise _no_user_id() from None


def _known(user_id: str) -> User:
    if not is_user_id(user_id):
        raise _no_user_id()
    return User(user_id)


def _by_ticket(text: str, session_id: UUID, backend: Backend) -> User:
    user = None
    with backend.reading() as session:
        known = tickets.is_known(session, session_id, text)
    if known:
        with backend.unit_of_work() as uow:
            user = tickets.redeem(uow, session_id, text)
    if user is None:
        raise Unauthenticated("The ticket is not valid, was used, or has ended.")
    return user


def _no_user_id() -> Unauthenticated:
    return Unauthenticated(USER_ID_RULE)

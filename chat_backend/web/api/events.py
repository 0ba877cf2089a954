"""Server-sent events: the socket's events, for curl and for clients behind proxies."""

from __future__ import annotations

from contextlib import ExitStack

from flask import Blueprint, Flask, Response, current_app, request

from chat_backend.web.turns import end_turn
from chat_backend.web.websocket.endpoint import admit, in_turns
from chat_backend.web.websocket.hub import Hub
from chat_backend.web.websocket.outbox import StreamOutbox

bp = Blueprint("events", __name__)
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@bp.get("/api/v1/chat/sessions/<session_id>/events")
def stream(session_id: str) -> Response:
    """Stream what happens in a chat session; refusals are ordinary HTTP errors."""
    hub: Hub = current_app.extensions["chat_hub"]
    hub.start()
    outbox = StreamOutbox(request.environ.get("gunicorn.socket"), comment_seconds=hub.settings.ping_seconds)
    connection, since = admit(hub, session_id, outbox)
    outbox.sends_cursors = since is not None and since.tag is not None
    if request.method == "HEAD":
        return Response(mimetype="text/event-stream", headers=HEADERS)
    with ExitStack() as entering:
        feed = entering.enter_context(hub.feed(connection.session_id))
        replay = hub.join(feed, connection, since=since)
        entering.callback(hub.leave, feed, connection)
        end_turn()
        response = Response(outbox.stream(in_turns(replay, connection)), mimetype="text/event-stream", headers=HEADERS)
        # The feed is held for as long as the response lasts, which outlives this function.
        response.call_on_close(entering.pop_all().close)
    return response


def install_events(app: Flask) -> None:
    """Add the route to the app."""
    app.register_blueprint(bp)

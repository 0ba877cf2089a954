"""Server-sent events: the socket's events, for curl and for clients behind proxies."""

from __future__ import annotations

from flask import Blueprint, Flask, Response, current_app, request

from chat_backend.web.websocket.endpoint import admit
from chat_backend.web.websocket.hub import Hub
from chat_backend.web.websocket.outbox import StreamOutbox

bp = Blueprint("events", __name__)


@bp.get("/api/v1/chat/sessions/<session_id>/events")
def stream(session_id: str) -> Response:
    """Stream what happens in a chat session; refusals are ordinary HTTP errors."""
    hub: Hub = current_app.extensions["chat_hub"]
    hub.start()
    outbox = StreamOutbox(request.environ.get("gunicorn.socket"), comment_seconds=hub.settings.ping_seconds)
    connection, since = admit(hub, session_id, outbox)
    # The feed is held for as long as the response lasts, which outlives this function.
    holding = hub.feed(connection.session_id)
    feed = holding.__enter__()
    try:
        hub.join(feed, connection, since=since)
    except BaseException:
        holding.__exit__(None, None, None)
        raise

    def ended() -> None:
        hub.leave(feed, connection)
        holding.__exit__(None, None, None)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(outbox.stream(ended), mimetype="text/event-stream", headers=headers)


def install_events(app: Flask) -> None:
    """Add the route to the app."""
    app.register_blueprint(bp)

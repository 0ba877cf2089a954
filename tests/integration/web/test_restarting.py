"""Who comes while a web process is on its way out."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.support.chat import API
from tests.support.rest import Rest
from tests.support.stack import refused


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None: ...


@pytest.fixture
def address(sqlite_app: Flask) -> Iterator[str]:
    """Where the app is served, its goodbye said: gunicorn closes that door, but who is in it comes through."""
    server = make_server("127.0.0.1", 0, sqlite_app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    sqlite_app.extensions["chat_hub"].shut_down()
    yield f"127.0.0.1:{server.server_port}{API}/sessions"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_who_comes_too_late_is_told_to_come_back(address: str, sqlite_rest: Rest) -> None:
    session_id = sqlite_rest.new_session()

    error, code = refused(f"ws://{address}/{session_id}/websocket?user_id=ann")
    stream = sqlite_rest.get(f"/sessions/{session_id}/events")

    assert (error["error_code"], code) == ("SERVER_RESTARTING", 1012)
    assert (stream.status_code, stream.headers["Retry-After"]) == (503, "1")
    assert stream.get_json()["error_code"] == "SERVER_RESTARTING"

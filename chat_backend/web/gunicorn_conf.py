"""gunicorn's settings: `gunicorn -c python:chat_backend.web.gunicorn_conf wsgi:app`.

The names below are gunicorn's. WEB_CONCURRENCY is its own too: the number of processes, 1 by default.
"""

from __future__ import annotations

import _thread
import signal
import sys
from types import FrameType
from typing import Any

from chat_backend.domain.limits import UNSENT_RESPONSES, WAITING_IN_LINE
from chat_backend.startup import WRONG_USE, settings_or_exit
from chat_backend.web import thread_worker

settings = settings_or_exit()

# Requests that neither wait nor hold a socket: always room for these, so health always answers.
SPARE_THREADS = 32
SPARE_CONNECTIONS = 1000

_host = f"[{settings.bind_host}]" if ":" in settings.bind_host else settings.bind_host
bind = f"{_host}:{settings.port}"
worker_connections = settings.socket_limit + SPARE_CONNECTIONS
if settings.is_threaded:
    worker_class = "gthread"
    # An open socket, an SSE stream, a request that waits for its reply or for its turn, and a response that its client
    # does not read each hold a thread.
    threads = settings.socket_limit + settings.max_waiting_requests + UNSENT_RESPONSES + SPARE_THREADS
    if settings.requests_at_once:
        threads += WAITING_IN_LINE
    worker_connections += threads
else:
    worker_class = "gevent"
timeout = 60
graceful_timeout = 8
# With gevent a terminated process waits this long for connections on which nobody asks anything. Shorter is worse: a
# request that comes as its connection is given up is reset, and a busy process gives up late.
keepalive = 5
# Whose X-Forwarded-* are believed is our own setting (TRUSTED_PROXIES); a client's SCRIPT_NAME never is.
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
# Never retire a process: it would cut its sockets in mid-frame.
max_requests = 0
preload_app = False
control_socket_disable = True
loglevel = settings.log_level.lower()
accesslog = "-"
logger_class = "chat_backend.web.access_log.AccessLog"
# Not %(r)s: the query string may hold a ticket.
access_log_format = '%(h)s "%(m)s %(U)s" %(s)s %(b)s %(M)sms %({x-request-id}o)s'


def on_starting(server: Any) -> None:
    """Refuse a pair that deadlocks: a greenlet yields inside a write, another blocks the loop."""
    if settings.is_sqlite and server.cfg.worker_class_str != "gthread":
        print(
            f"DATABASE_URL is SQLite, which does not work with gunicorn's {server.cfg.worker_class_str} workers: "
            "use gthread, or PostgreSQL.",
            file=sys.stderr,
        )
        sys.exit(WRONG_USE)


def post_worker_init(worker: Any) -> None:
    """See to it that a terminated process says goodbye on its sockets before it waits for them to close.

    With threads, keep the main thread free as well.
    """
    if settings.is_threaded:
        thread_worker.install(worker)
    hub = getattr(worker.wsgi, "extensions", {}).get("chat_hub")
    if hub is None:
        return
    handle_exit = signal.getsignal(signal.SIGTERM)
    assert callable(handle_exit)

    def say_goodbye_first(signum: int, frame: FrameType | None) -> None:
        # Neither a lock nor a wait may happen in a signal handler. This starts a thread without either,
        # and under gevent, which replaces it, a greenlet.
        _thread.start_new_thread(hub.shut_down, ())
        handle_exit(signum, frame)

    signal.signal(signal.SIGTERM, say_goodbye_first)

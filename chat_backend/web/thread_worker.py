"""Keep the main thread of gunicorn's threaded worker free: it accepts connections for all.

As it comes, it also waits up to two seconds for each client whose connection ends; a hundred clients that do not close
stop the process for minutes. A connection that says nothing holds a thread for five seconds.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from gunicorn.workers.gthread import _DEFER, ThreadWorker

from chat_backend.web.websocket.outbox import shut

FIRST_BYTE_SECONDS = 0.05
LINGER_SECONDS = 2.0
LINGERING = 16
DISCARD_BYTES = 65_536


def install(worker: ThreadWorker) -> None:
    """Let connections begin and end in the threads that serve requests, and hold few of these."""
    handle = worker.handle
    places = threading.BoundedSemaphore(LINGERING)

    def handle_and_end(connection: Any) -> Any:
        if not connection.initialized and not connection.wait_for_data(FIRST_BYTE_SECONDS):
            return _DEFER  # the main thread polls it until it says something
        keep = handle(connection)
        if keep is False:
            _end(connection.sock, places)
        return keep

    worker.handle = handle_and_end


def _end(sock: socket.socket, places: threading.BoundedSemaphore) -> None:
    """Let the client read the last of it, if there is a place to wait, so that the main thread need not wait."""
    if places.acquire(blocking=False):
        try:
            _linger(sock)
        finally:
            places.release()
    shut(sock)


def _linger(sock: socket.socket) -> None:
    """Wait until the client has closed too: to close with something unread resets the connection."""
    deadline = time.monotonic() + LINGER_SECONDS
    discarded = 0
    try:
        sock.shutdown(socket.SHUT_WR)
        while discarded < DISCARD_BYTES and (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            data = sock.recv(4096)
            if not data:
                return
            discarded += len(data)
    except OSError:
        return  # it is closed, or its time is up

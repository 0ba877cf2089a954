"""What is refused before its body was read ends its connection, and says so.

gunicorn reads 64 KiB of such a body and then closes; a client that was told `keep-alive` would lose its next request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask

READ_ANYWAY_BYTES = 65_536

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def install(app: Flask) -> None:
    """Have gunicorn announce the end of a connection whose request is refused with a large body."""
    app.wsgi_app = _closing(app.wsgi_app)  # type: ignore[assignment, method-assign]


def _closing(wsgi: Wsgi) -> Wsgi:
    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, *more: Any) -> Any:
            if status >= "4" and _is_large(environ):
                # A response can't say it: servers drop its `Connection` header. gunicorn's own response can.
                close = getattr(getattr(start_response, "__self__", None), "force_close", None)
                if close is not None:
                    close()
            return start_response(status, *more)

        return wsgi(environ, start)

    return call


def _is_large(environ: dict[str, Any]) -> bool:
    length = environ.get("CONTENT_LENGTH")
    return int(length) >= READ_ANYWAY_BYTES if length else "HTTP_TRANSFER_ENCODING" in environ

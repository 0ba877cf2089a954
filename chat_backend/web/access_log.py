"""The log of requests: one line each, whatever a client asks for."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from gunicorn.glogging import Logger

READABLE = "/:@!$&'()*+,;=~[]{}|<>?^`"


class AccessLog(Logger):
    """gunicorn's, with the path as it can be written in a URL: decoded, it may hold line ends."""

    def atoms(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().atoms(resp, req, environ, request_time)
        # WSGI hands a path over as Latin-1.
        return found | {"U": quote(str(found["U"]), safe=READABLE, encoding="latin-1", errors="replace")}

"""The page to chat in: files of our own, served as they lie in `client/`."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Flask, Response, send_from_directory

CLIENT = Path(__file__).parent / "client"
# Nothing of another origin, nothing inline; HTML is set in one place of the page only, by the policy named here.
POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types rendered-by-server"
)

bp = Blueprint("page", __name__)


@bp.get("/")
def show() -> Response:
    """Show the page; who asks is asked by the page itself."""
    return show_file("index.html")


@bp.get("/client/<path:name>")
def show_file(name: str) -> Response:
    """Show a file of the page. A browser keeps it, and asks each time whether it still is the one."""
    response = send_from_directory(CLIENT, name)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = "no-cache"
    return response


def install(app: Flask) -> None:
    """Serve the page."""
    app.register_blueprint(bp)

"""The page to chat in: files of our own, served as they lie in `client/`.

The page names its files by an edition, which changes with any of them: so a browser keeps them without asking again,
and never mixes two editions. By its plain name a file can be had too, for clients of others.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from flask import Blueprint, Flask, Response, make_response, request, send_from_directory

CLIENT = Path(__file__).parent / "client"
# Nothing of another origin, nothing inline; HTML is set in one place of the page only, by the policy named here.
POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types rendered-by-server"
)
ASK_AGAIN = "no-cache"
KEEP = "public, max-age=31536000, immutable"

bp = Blueprint("page", __name__)


@bp.get("/")
def show() -> Response:
    """Show the page; who asks is asked by the page itself."""
    page = (CLIENT / "index.html").read_text(encoding="utf-8").replace('"/client/', f'"/client/at-{edition()}/')
    response = _guarded(make_response(page), ASK_AGAIN)
    response.add_etag()
    response.make_conditional(request)
    return response


@bp.get("/client/<path:name>")
def show_file(name: str) -> Response:
    """Show a file of the page, as it is now."""
    return _guarded(send_from_directory(CLIENT, name), ASK_AGAIN)


@bp.get("/client/at-<string:asked>/<path:name>")
def show_file_of_edition(asked: str, name: str) -> Response:
    """Show a file of an edition; one that is no more is the one there is now, not to be kept."""
    return _guarded(send_from_directory(CLIENT, name), KEEP if asked == edition() else ASK_AGAIN)


def edition(folder: Path = CLIENT) -> str:
    """Return a name for what the files hold: the same wherever they are served, another one after any change."""
    files = sorted(folder.rglob("*.*"))
    found = [path.stat() for path in files]
    return _digest(
        folder, tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in zip(files, found, strict=True))
    )


# They are read again when one of them looks changed.
@lru_cache(maxsize=4)
def _digest(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path, *_ in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def install(app: Flask) -> None:
    """Serve the page."""
    app.register_blueprint(bp)


def _guarded(response: Response, kept: str) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = kept
    return response

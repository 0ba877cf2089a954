"""What clients can read about us: the AsyncAPI document, and a page over the OpenAPI one."""

from __future__ import annotations

from flask import Blueprint, Flask, Response, jsonify
from flask_swagger_ui import get_swaggerui_blueprint

from chat_backend.web.asyncapi import asyncapi_document
from chat_backend.web.openapi import PREFIX, TITLE

DOCS = "/docs"

bp = Blueprint("documents", __name__, url_prefix=PREFIX)


@bp.get("/asyncapi.json")
def asyncapi() -> Response:
    """Show what is said on the socket, as AsyncAPI 3."""
    return jsonify(asyncapi_document())


def install(app: Flask) -> None:
    """Serve the documents; the page loads nothing from elsewhere."""
    app.register_blueprint(bp)
    page = get_swaggerui_blueprint(
        DOCS,
        f"{PREFIX}/openapi.json",
        config={
            "app_name": TITLE,
            "validatorUrl": None,
            "oauth2RedirectUrl": f"{DOCS}/oauth2-redirect.html",
        },
    )
    app.register_blueprint(page)
    app.add_url_rule(DOCS, endpoint=f"{page.name}.show")  # not only below it: few clients follow redirects unasked

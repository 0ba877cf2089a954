"""The web process: everything that speaks HTTP, put together."""

from __future__ import annotations

from flask import Flask
from flask.json.provider import DefaultJSONProvider
from werkzeug.middleware.proxy_fix import ProxyFix

from chat_backend.bootstrap import Backend, connect, flask_app
from chat_backend.config import Settings
from chat_backend.domain.limits import BODY_BYTES
from chat_backend.web import (
    auth,
    documents,
    errors,
    headers,
    hosts,
    live,
    page,
    rate_limits,
    rendering,
    sending,
    turns,
    unread,
)
from chat_backend.web.api import audit, llm_jobs, messages, participants, providers, quota, service, sessions, tickets
from chat_backend.web.health import HealthCheck
from chat_backend.web.model_lists import ModelCatalogue
from chat_backend.web.openapi import api_of, describe_free_forms, need_not, need_one_of

# A noun is one file and one line here.
BLUEPRINTS = (
    sessions.bp,
    messages.bp,
    llm_jobs.bp,
    participants.bp,
    tickets.bp,
    audit.bp,
    providers.bp,
    quota.bp,
    service.bp,
)


class _Json(DefaultJSONProvider):
    """JSON as people write it: fields in their order, letters as letters."""

    sort_keys = False
    ensure_ascii = False
    compact = True


def create_app(settings: Settings | None = None, backend: Backend | None = None) -> Flask:
    """Return the web app. Nothing is contacted yet.

    Raises ConfigError where the settings, read from the environment unless given, can't be used.
    """
    settings = settings or Settings.from_environment()
    app = flask_app(settings)
    app.json = _Json(app)
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    # A user id in a path may hold two slashes, and no address of ours has an empty part.
    app.url_map.merge_slashes = False
    app.extensions["backend"] = backend or connect(settings, app)
    app.extensions["health"] = HealthCheck(app.extensions["backend"])
    app.extensions["models"] = ModelCatalogue(settings)
    _trust_proxies(app, settings.trusted_proxies)
    headers.install(app, settings)
    errors.install(app)
    unread.install(app)
    sending.install(app, settings)
    hosts.install(app, settings)
    rate_limits.install(app, settings)
    turns.install(app, settings)
    rendering.install(app)
    auth.install(app)
    _register(app, settings)
    live.install(app)
    return app


def _register(app: Flask, settings: Settings) -> None:
    api = api_of(app, settings)
    for blueprint in BLUEPRINTS:
        api.register_blueprint(blueprint)
    describe_free_forms(api.spec)
    need_one_of(api, "ReplyRequest", ("message_id", "prompt"))
    if settings.default_llm_model:
        need_not(api, "NewSession", ("llm_provider", "llm_model"))
    documents.install(app)
    page.install(app)


def _trust_proxies(app: Flask, count: int) -> None:
    if count:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=count, x_port=count)  # type: ignore[method-assign]

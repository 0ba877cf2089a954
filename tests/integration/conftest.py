"""A web process without its server: the app over a real database and a real Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from chat_backend.config import Settings
from chat_backend.web.app import create_app
from tests.conftest import TIMINGS
from tests.support.pretend_worker import PretendWorker
from tests.support.rest import Rest
from tests.support.tokens import KEY
from tests.support.valkey import Valkey

JWT_ISSUER = "https://issuer.example"
JWT_AUDIENCE = "chat"

MakeApp = Callable[..., Flask]


@pytest.fixture
def web_app(settings: Settings) -> Iterator[Flask]:
    """The web app; the test runs once on each database."""
    yield from _running(settings)


@pytest.fixture
def rest(web_app: Flask) -> Rest:
    """A client as `ann`; `rest.of("bob")` is someone else."""
    return Rest(web_app)


@pytest.fixture
def worker(web_app: Flask) -> PretendWorker:
    return PretendWorker(web_app.extensions["backend"])


@pytest.fixture
def sqlite_app(sqlite_url: str, valkey: Valkey) -> Iterator[Flask]:
    """The web app over SQLite alone, for what no database decides."""
    environ = {"AUTH_MODE": "dev", "DATABASE_URL": sqlite_url, "REDIS_URL": valkey.url, **TIMINGS}
    yield from _running(Settings.from_environment(environ))


@pytest.fixture
def sqlite_rest(sqlite_app: Flask) -> Rest:
    return Rest(sqlite_app)


@pytest.fixture
def jwt_app(sqlite_url: str, valkey: Valkey) -> Iterator[Flask]:
    """The web app as it is in production: who asks brings a token."""
    environ = {
        "JWT_SECRET": KEY,
        "JWT_ISSUER": JWT_ISSUER,
        "JWT_AUDIENCE": JWT_AUDIENCE,
        "DATABASE_URL": sqlite_url,
        "REDIS_URL": valkey.url,
        **TIMINGS,
    }
    yield from _running(Settings.from_environment(environ))


@pytest.fixture
def make_app(sqlite_url: str, valkey: Valkey) -> Iterator[MakeApp]:
    """Make a web app with settings of its own, in dev mode unless told otherwise."""
    apps = []

    def make(**changes: str) -> Flask:
        environ = {"AUTH_MODE": "dev", "DATABASE_URL": sqlite_url, "REDIS_URL": valkey.url, **TIMINGS, **changes}
        apps.append(create_app(Settings.from_environment(environ)))
        return apps[-1]

    yield make
    for app in apps:
        app.extensions["chat_hub"].shut_down()
        app.extensions["backend"].close()


def _running(settings: Settings) -> Iterator[Flask]:
    app = create_app(settings)
    app.extensions["chat_hub"].start()
    yield app
    app.extensions["chat_hub"].shut_down()
    app.extensions["backend"].close()

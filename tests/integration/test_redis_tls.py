"""TLS to Redis: every client of ours verifies the server's certificate, whatever Celery reads by itself."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from flower.utils.broker import Broker
from kombu import pools

from chat_backend.config import Settings
from chat_backend.queue import names
from chat_backend.queue.celery_settings import celery_settings
from chat_backend.queue.enqueue import producer
from chat_backend.realtime.connection import async_client, client, listening_client
from tests.support.processes import ROOT, surroundings
from tests.support.tls import Authority, tls_proxy
from tests.support.valkey import Valkey

Environment = dict[str, str]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def proxies(authority: Authority, valkey_server: Valkey) -> Iterator[dict[str, int]]:
    """The ports of three servers: a good certificate, one for another name, one that is signed by itself."""
    valkey_server.start()
    with (
        tls_proxy(authority.certificate("127.0.0.1"), valkey_server.port) as right,
        tls_proxy(authority.certificate("redis.example"), valkey_server.port) as other,
        tls_proxy(authority.self_signed("127.0.0.1"), valkey_server.port) as own,
    ):
        yield {"right name": right, "other name": other, "self-signed": own}


def url(valkey: Valkey, port: int, query: str = "") -> str:
    parts = urlsplit(valkey.url)
    return f"rediss://:{parts.password}@127.0.0.1:{port}/0{query}"


def ping(settings: Settings) -> None:
    with client(settings) as redis:
        redis.ping()


def listen(settings: Settings) -> None:
    with listening_client(settings) as redis:
        redis.ping()


def ping_in_loop(settings: Settings) -> None:
    async def run() -> None:
        async with async_client(settings) as redis:
            await redis.ping()  # type: ignore[misc]

    asyncio.run(run())


def send_wake_up(settings: Settings) -> None:
    pools.reset()  # kombu shares connections to one address, whatever their certificates
    with producer(settings) as app:
        app.send_task(names.PROCESS_LLM, args=["x"], queue=names.QUEUE, ignore_result=True)


def show_in_flower(settings: Settings) -> None:
    use_ssl = celery_settings(settings, worker=True)["broker_use_ssl"]
    asyncio.run(Broker(settings.broker_url, broker_use_ssl=use_ssl).queues([names.QUEUE]))


CLIENTS: list[Callable[[Settings], Any]] = [ping, listen, ping_in_loop, send_wake_up, show_in_flower]
# Which server, what the operator sets beside its address, whether it is talked to.
CASES = [
    ("right name", {"REDIS_CA_FILE": "{ca}"}, "", True),
    ("right name", {}, "?ssl_ca_certs={ca}", True),
    ("other name", {"REDIS_CA_FILE": "{ca}"}, "", False),
    ("other name", {"REDIS_CA_FILE": "{ca}"}, "?ssl_check_hostname=False", True),
    ("self-signed", {"REDIS_CA_FILE": "{ca}"}, "", False),
    ("self-signed", {"REDIS_SSL_CERT_REQS": "none"}, "", True),
    ("self-signed", {}, "?ssl_cert_reqs=CERT_NONE", True),
    ("self-signed", {}, "?SSL_CERT_REQS=None", True),
    ("self-signed", {"REDIS_SSL_CERT_REQS": "none"}, "?ssl_cert_reqs=CERT_REQUIRED", False),
]


@pytest.mark.parametrize(("server", "more", "query", "accepted"), CASES)
def test_every_client_verifies_the_certificate(
    server: str,
    more: Environment,
    query: str,
    accepted: bool,
    valkey: Valkey,
    proxies: dict[str, int],
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = url(valkey, proxies[server], query.format(ca=authority.ca_file))
    environ = {name: value.format(ca=authority.ca_file) for name, value in more.items()}
    # Celery looks for it there; what it finds must not matter.
    monkeypatch.setenv("CELERY_BROKER_URL", address)
    settings = Settings.from_environment(
        {"AUTH_MODE": "dev", "REDIS_URL": address, "CELERY_BROKER_URL": address, **environ}
    )

    for connect in CLIENTS:
        if accepted:
            connect(settings)
        else:
            with pytest.raises(Exception, match="certificate verify failed"):
                connect(settings)


def test_amqps_broker_is_verified_with_its_name(
    proxies: dict[str, int], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    broker = f"amqps://127.0.0.1:{proxies['other name']}//"
    settings = Settings.from_environment({"AUTH_MODE": "dev", "CELERY_BROKER_URL": broker})

    with producer(settings) as app, pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        app.connection_for_write().connect()


@pytest.mark.parametrize(("server", "accepted"), [("right name", True), ("other name", False)])
def test_worker_app_verifies_broker_named_in_environment(
    server: str, accepted: bool, valkey: Valkey, proxies: dict[str, int], authority: Authority
) -> None:
    environ = {
        "AUTH_MODE": "dev",
        "CELERY_BROKER_URL": url(valkey, proxies[server]),
        "CELERY_RESULT_BACKEND": url(valkey, proxies[server]),
        "REDIS_CA_FILE": str(authority.ca_file),
    }
    code = """
from workers.app import app
print("backend", type(app.backend).__name__)
for connect in (app.connection, app.connection_for_read, app.connection_for_write):
    connect().connect()
"""

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=surroundings() | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "backend DisabledBackend" in done.stdout, done.stderr
    assert (done.returncode == 0) == accepted, done.stderr
    assert accepted or "CERTIFICATE_VERIFY_FAILED" in done.stderr

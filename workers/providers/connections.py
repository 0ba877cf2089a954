"""The pool of connections to a provider, and its errors in our words."""

from __future__ import annotations

import base64
import contextlib
import errno
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from httpx_aiohttp import AiohttpTransport

from chat_backend.config import Settings
from chat_backend.domain.errors import (
    CertificateRefused,
    ConnectionRefused,
    ProviderError,
    ProviderUnreachable,
    StreamBroken,
)

MOST_CONNECTIONS = 1000
PIECE_BYTES = 64 * 1024
MOST_HEADER_BYTES = 64 * 1024
MOST_HEADERS = 1000

# aiohttp's own are here too: the transport translates only most of them.
TRANSPORT_ERRORS = (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, HttpProcessingError, OSError, UnicodeError)

_NO_CONNECTION = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    httpx.InvalidURL,
    httpx.UnsupportedProtocol,
    UnicodeError,  # a host that can't be a name
)


@dataclass
class Connecting:
    """How one call gets its connection: `fresh` asks for a new one, `reused` tells that it was an old one."""

    fresh: bool = False
    reused: bool = False


# Of the current call: the transport has no parameter for it.
CONNECTING: ContextVar[Connecting | None] = ContextVar("connecting", default=None)


class AbortingConnector(aiohttp.TCPConnector):
    """Closes at once what can't be used again, and heeds `CONNECTING`.

    aiohttp itself waits until the rest of the request has been sent, and over TLS up to half a minute for the other
    side to close: a provider that does not read would never learn of a cancel, and would go on billing.
    """

    async def _get(self, key: Any, traces: list[Any]) -> Any:
        connecting = CONNECTING.get() or Connecting()
        if connecting.fresh:
            return None
        connection = await super()._get(key, traces)
        connecting.reused = connection is not None
        return connection

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if should_close or protocol.should_close:
            protocol.abort()
        super()._release(key, protocol, should_close=should_close)


def open_client(settings: Settings, headers: Mapping[str, str], *, ca_file: str = "") -> httpx.AsyncClient:
    """Open a client inside the running loop: no redirects, no proxies of the environment, no cookies kept.

    `ca_file` names certificates that are trusted beside the usual authorities.
    """
    tls = httpx.create_ssl_context(trust_env=False)
    if ca_file:
        tls.load_verify_locations(cafile=ca_file)
    limit = max(MOST_CONNECTIONS, 2 * settings.worker_threads)

    def session() -> aiohttp.ClientSession:
        connector = AbortingConnector(limit=limit, ssl=tls)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=MOST_HEADER_BYTES,
            max_field_size=MOST_HEADER_BYTES,
            max_headers=MOST_HEADERS,
        )

    seconds = settings.llm_connect_timeout_seconds
    plain = {"Accept-Encoding": "identity", "Content-Type": "application/json", "User-Agent": "chat_backend"}
    return httpx.AsyncClient(
        transport=AiohttpTransport(verify=tls, trust_env=False, client=session),
        # "pool" is aiohttp's limit for all of connecting, name lookup included; silence later is ours to watch.
        timeout=httpx.Timeout(None, connect=seconds, pool=seconds),
        headers=[(name.encode(), _one_line(value).encode()) for name, value in {**headers, **plain}.items() if value],
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
    )


def parts(response: httpx.Response) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
    """Give the body as it comes, and let go of it at the end of the block: the garbage collector would do so later."""
    return contextlib.aclosing(cast(AsyncGenerator[bytes, None], response.aiter_raw()))


async def pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    """Cut a long body, so that sending it lets the loop go on with other work."""
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


def translated(error: BaseException, http_status: int | None) -> ProviderError:
    """Give a transport's error as ours."""
    cause = error.__cause__ or error
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        return _certificate_refused(cause.certificate_error)
    if http_status is None and isinstance(cause, aiohttp.ClientConnectorSSLError):
        return ProviderUnreachable("The provider can't be reached by TLS; its base URL may need http://.")
    if http_status is None and isinstance(cause, aiohttp.ClientConnectorError) and _is_refused(cause.os_error):
        return ConnectionRefused("The provider can't be reached.")
    if http_status is None and isinstance(cause, _NO_CONNECTION):
        return ProviderUnreachable("The provider can't be reached.")
    return StreamBroken("The connection to the provider broke.", http_status=http_status)


def was_stale(error: BaseException, connecting: Connecting) -> bool:
    """Tell whether a call failed because the other side had closed a kept connection.

    Only for a call that has no answer yet: once an answer has begun, the request was taken.
    """
    cause = error.__cause__ or error
    return connecting.reused and isinstance(cause, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError)


def _certificate_refused(cause: Exception) -> CertificateRefused:
    why = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else "it names another host"
    why = why.rstrip(".")
    error = CertificateRefused(f"The provider's certificate can't be trusted: {why}.")
    error.provider_message = why
    return error


def _is_refused(error: OSError) -> bool:
    # By its text: the errors of a name's several addresses come as one, which may have no number.
    return f"[Errno {errno.ECONNREFUSED}]" in str(error)


def bearer(api_key: str) -> dict[str, str]:
    """Give the header that carries a key, if there is one."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def without_credentials(url: str) -> tuple[str, dict[str, str]]:
    """Take user and password out of an address, as the header that carries them."""
    parsed = urlsplit(url)
    credentials, found, host = parsed.netloc.rpartition("@")
    if not found:
        return url, {}
    encoded = base64.b64encode(unquote(credentials).encode()).decode()
    return urlunsplit(parsed._replace(netloc=host)), {"Authorization": f"Basic {encoded}"}


def _one_line(value: str) -> str:
    return " ".join(value.split())

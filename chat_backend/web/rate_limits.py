"""How often one may ask: by user and by address, on REST and, for what is written, on sockets too.

All web processes count together, in Redis; while it is away or too slow, each counts by itself.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask, Request, current_app

from chat_backend.config import Settings
from chat_backend.domain.errors import ChatError, TooMany
from chat_backend.domain.rate import LocalRates, Rate, Refusals
from chat_backend.domain.user import User
from chat_backend.realtime.connection import RedisAway
from chat_backend.realtime.request_rates import RequestRates

log = logging.getLogger(__name__)

IPV6_NETWORK_BITS = 64
REQUESTS, FROM_ADDRESS, REPLIES = "requests", "requests from one address", "asked replies"


def install(app: Flask, settings: Settings) -> None:
    """Give an app its limits; who asks is counted where it is found out (`auth`)."""
    app.extensions["rate_limits"] = RateLimits(settings, RequestRates(settings))


def rate_limits() -> RateLimits:
    found: RateLimits = current_app.extensions["rate_limits"]
    return found


@contextmanager
def refusals_counted(request: Request) -> Iterator[None]:
    """Count what is refused in here, before anybody asked who is there, by its address. Raises TooMany instead."""
    try:
        yield
    except ChatError:
        rate_limits().request(request, None)
        raise


class RateLimits:
    """Counts what is asked. A limit of 0 is none, and nothing is then counted anywhere."""

    def __init__(
        self,
        settings: Settings,
        shared: RequestRates,
        *,
        local: LocalRates | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self._settings = settings
        self._shared = shared
        self._local = local or LocalRates()
        self._refusals = refusals or Refusals()
        self._warned = False

    def request(self, request: Request, user: User | None) -> None:
        """Count a request, for its user where that is known, and for its address. Raises TooMany."""
        rates = []
        if user is not None and self._settings.requests_per_user:
            rates.append(Rate(REQUESTS, user.id, self._settings.requests_per_user))
        if self._settings.requests_per_address and (address := network(request.remote_addr)):
            rates.append(Rate(FROM_ADDRESS, address, self._settings.requests_per_address))
            self._warn_of_proxies(request)
        if rates:
            self._take(rates)

    def command(self, user: User) -> None:
        """Count a request of a user whose address is counted, as on an open socket. Raises TooMany."""
        if self._settings.requests_per_user:
            self._take([Rate(REQUESTS, user.id, self._settings.requests_per_user)])

    def ask(self, user: User) -> None:
        """Count a reply that is asked for. Raises TooMany."""
        if self._settings.asks_per_user:
            self._take([Rate(REPLIES, user.id, self._settings.asks_per_user)])

    def _take(self, rates: list[Rate]) -> None:
        """Take one of each rate, or none. Raises TooMany."""
        for rate in rates:
            if (left := self._refusals.left(rate)) > 0:
                raise _too_many(rate, left)
        try:
            refused = self._shared.take(rates)
        except RedisAway:
            refused = self._local.take(rates)
        if refused is not None:
            self._refusals.note(*refused)
            raise _too_many(*refused)

    def _warn_of_proxies(self, request: Request) -> None:
        if not self._warned and not self._settings.trusted_proxies and "X-Forwarded-For" in request.headers:
            self._warned = True
            log.warning(
                "requests come through a proxy: unless TRUSTED_PROXIES counts it, its users share one address's limit",
                extra={"action": "rate"},
            )


def network(address: str | None) -> str | None:
    """Return what counts as one address: of IPv6 the network, which is what one customer is given.

    None where there is none: on a socket file everyone comes from nowhere.
    """
    try:
        found = ipaddress.ip_address(_without_port(address or ""))
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), IPV6_NETWORK_BITS), strict=False))


def _without_port(address: str) -> str:
    """Return the address of `192.0.2.1:443`, `[2001:db8::1]` or `[2001:db8::1]:443`, as some proxies forward it."""
    found = _WITH_PORT.fullmatch(address)
    return found[1] or found[2] if found else address


_WITH_PORT = re.compile(r"\[([^\]]+)\](?::\d{1,5})?|([0-9.]+):\d{1,5}")


def _too_many(rate: Rate, wait: float) -> TooMany:
    seconds = math.ceil(wait)
    message = f"The limit is {rate.per_minute} {rate.what} a minute."
    return TooMany(message, retry_after_seconds=seconds, details={"retry_after_seconds": seconds})

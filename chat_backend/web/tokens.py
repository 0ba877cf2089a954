"""Bearer tokens: JWTs signed with a shared secret, or with a key that an identity provider publishes."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import jwt

from chat_backend.config import Settings
from chat_backend.domain.errors import ErrorCode, Unauthenticated, Unavailable
from chat_backend.domain.user import USER_ID_RULE, User, is_user_id
from chat_backend.web.key_address import fetch

log = logging.getLogger(__name__)

LONGEST_TOKEN = 8192
LEEWAY_SECONDS = 30
KEYS_LAST_SECONDS = 300
REFETCH_SECONDS = 60
# While no key was ever known, nobody gets in.
FIRST_FETCH_SECONDS = 5
FETCH_SECONDS = 5
# How many wait for a fetch that others began: of threads there are few, of greenlets many.
MOST_WAITING, MANY_WAITING = 8, 100
ADMIN = "admin"
# What an access token is called in the header `typ`: a JWT of any kind, or by RFC 9068.
ACCESS_TYPES = frozenset({"jwt", "at+jwt"})
# Claims in which issuers write the same (Keycloak, AWS Cognito, Simple JWT), and what they write for an access token.
KIND_CLAIMS = ("typ", "token_use", "token_type")
ACCESS_KINDS = frozenset({"bearer", "access", "access_token", "jwt", "at+jwt"})
# A key decides its algorithm, never the token: an RS256 key is public, and as an HS256 secret everyone would know it.
_ALGORITHM_OF = {"RSA": "RS256", "EC": "ES256"}


class Tokens:
    """Tells who holds a token. The reasons of a refusal are not told."""

    def __init__(
        self, settings: Settings, *, fetch_seconds: float = FETCH_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._secret = settings.jwt_secret
        self._published: PublishedKeys | None = None
        if url := settings.jwt_jwks_url:
            waiting = MOST_WAITING if settings.is_threaded else MANY_WAITING
            self._published = PublishedKeys(url, fetch_seconds=fetch_seconds, most_waiting=waiting, clock=clock)
        self._issuer = settings.jwt_issuer or None
        self._audience = settings.jwt_audience or None

    def read(self, token: str) -> User:
        """Return the user whom a token names. Raises Unauthenticated, and Unavailable while no key was ever known."""
        try:
            return _user(self._claims(token))
        # A token is a stranger's bytes: whatever goes wrong while they are read is that stranger's fault.
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            log.info("token refused", extra={"action": "authenticate", "error": type(error).__name__})
            raise Unauthenticated("The token is not valid.") from None

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > LONGEST_TOKEN:
            raise ValueError("too long")
        header = jwt.get_unverified_header(token)
        key, algorithm = self._key(header)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
        )
        _refuse_other_kinds(header, claims)
        return claims

    def _key(self, header: dict[str, Any]) -> tuple[Any, str]:
        if header.get("alg") == "HS256" and self._secret:
            return self._secret, "HS256"
        kid = header.get("kid")
        published = self._published.find(kid) if self._published and isinstance(kid, str) else None
        if published is None:
            raise jwt.InvalidKeyError("no such key")
        return published.key, _ALGORITHM_OF[str(published.key_type)]


class PublishedKeys:
    """The keys at a JWKS address: fetched when old, and once a minute at most for a key that is not known.

    While the address can't be reached, the keys known last go on being good. A fetch holds up who began it, and a few
    of those who bring a key that is not known, for as long as it may take and no longer.
    """

    def __init__(
        self, url: str, *, fetch_seconds: float, most_waiting: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._fetch_seconds = fetch_seconds
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._tried_at = -math.inf
        self._fetched_at = -math.inf
        self._fetching = threading.Lock()
        self._places = threading.BoundedSemaphore(most_waiting)

    def find(self, kid: str) -> jwt.PyJWK | None:
        """Return a published key by its name, or None. Raises Unavailable while none was ever known."""
        if self._should_fetch(kid):
            self._fetch_once(kid)
        if self._fetched_at == -math.inf:
            raise Unavailable(
                "Tokens can't be checked right now.",
                code=ErrorCode.KEYS_UNAVAILABLE,
                retry_after_seconds=FIRST_FETCH_SECONDS,
            )
        return self._keys.get(kid)

    def _should_fetch(self, kid: str) -> bool:
        now = self._clock()
        wanted = kid not in self._keys or now - self._fetched_at >= KEYS_LAST_SECONDS
        pause = FIRST_FETCH_SECONDS if self._fetched_at == -math.inf else REFETCH_SECONDS
        return wanted and now - self._tried_at >= pause

    def _fetch_once(self, kid: str) -> None:
        if self._fetching.acquire(blocking=False):
            try:
                if self._should_fetch(kid):
                    self._fetch()
            finally:
                self._fetching.release()
        elif kid not in self._keys:
            self._await_fetch()

    def _await_fetch(self) -> None:
        """Wait for the fetch that is under way: a key that is not known may well be in what it brings.

        Anyone can make up keys, so only a few wait, and the others are answered by what is known.
        """
        if self._places.acquire(blocking=False):
            try:
                if self._fetching.acquire(timeout=self._fetch_seconds):
                    self._fetching.release()
            finally:
                self._places.release()

    def _fetch(self) -> None:
        try:
            self._keys = _signing_keys(fetch(self._url, seconds=self._fetch_seconds))
            self._fetched_at = self._clock()
        except Exception as error:  # whatever is at the address, it is not the fault of who brought a token
            log.warning("could not fetch keys", extra={"action": "authenticate", "error": type(error).__name__})
        finally:
            # The pause begins with the end: else a fetch that takes as long would be followed by the next at once.
            self._tried_at = self._clock()


def _signing_keys(document: bytes) -> dict[str, jwt.PyJWK]:
    """Return the keys that a JWKS document publishes for signatures; there must be one."""
    found = jwt.PyJWKSet.from_dict(json.loads(document)).keys
    signing = {str(key.key_id): key for key in found if key.key_id and key.public_key_use in ("sig", None)}
    if not signing:
        raise ValueError("no keys")
    return {kid: key for kid, key in signing.items() if key.algorithm_name in _ALGORITHM_OF.values()}


def _refuse_other_kinds(header: dict[str, Any], claims: dict[str, Any]) -> None:
    """Raise InvalidTokenError for a token that the same issuer signs for another purpose (RFC 8725, 3.11)."""
    media_type = str(header.get("typ", "JWT")).lower().removeprefix("application/")
    if media_type not in ACCESS_TYPES:
        raise jwt.InvalidTokenError("typ")
    if any(str(claims[name]).lower() not in ACCESS_KINDS for name in KIND_CLAIMS if name in claims):
        raise jwt.InvalidTokenError("kind")
    # Logout tokens and other security events (RFC 8417), which need no `typ`.
    if isinstance(claims.get("events"), dict):
        raise jwt.InvalidTokenError("events")


def _user(claims: dict[str, Any]) -> User:
    subject, roles = claims["sub"], claims.get("roles")
    if not is_user_id(subject):
        raise Unauthenticated(f"The token's sub can't be used. {USER_ID_RULE}")
    return User(subject, is_admin=isinstance(roles, list) and ADMIN in roles, expires_at=_end(int(claims["exp"])))


def _end(seconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # beyond the year 9999: never

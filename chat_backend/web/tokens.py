"""Bearer tokens: JWTs signed with a shared secret, or with a key that an identity provider publishes."""

from __future__ import annotations

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
from chat_backend.domain.user import User, is_user_id

log = logging.getLogger(__name__)

LONGEST_TOKEN = 8192
LEEWAY_SECONDS = 30
KEYS_LAST_SECONDS = 300
REFETCH_SECONDS = 60
# While no key was ever known, nobody gets in.
FIRST_FETCH_SECONDS = 5
FETCH_TIMEOUT_SECONDS = 5
FETCH_PATIENCE_SECONDS = 10
ADMIN = "admin"
# A key decides its algorithm, never the token: an RS256 key is public, and as an HS256 secret everyone would know it.
_ALGORITHM_OF = {"RSA": "RS256", "EC": "ES256"}


class Tokens:
    """Tells who holds a token. The reasons of a refusal are not told."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._secret = settings.jwt_secret
        self._published = PublishedKeys(settings.jwt_jwks_url, clock=clock) if settings.jwt_jwks_url else None
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
        key, algorithm = self._key(jwt.get_unverified_header(token))
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
        )

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

    While the address can't be reached, the keys known last go on being good.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = jwt.PyJWKClient(
            url, cache_jwk_set=True, lifespan=KEYS_LAST_SECONDS, timeout=FETCH_TIMEOUT_SECONDS
        )
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._tried_at = -math.inf
        self._fetched_at = -math.inf
        self._lock = threading.Lock()

    def find(self, kid: str) -> jwt.PyJWK | None:
        """Return a published key by its name, or None. Raises Unavailable while none was ever known."""
        known = kid in self._keys
        # Who brings a key that is not known waits for the fetch that is under way: it may well be in what that brings.
        if (not known or self._should_fetch(kid)) and self._lock.acquire(
            timeout=0 if known else FETCH_PATIENCE_SECONDS
        ):
            try:
                if self._should_fetch(kid):
                    self._fetch()
            finally:
                self._lock.release()
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

    def _fetch(self) -> None:
        self._tried_at = self._clock()
        try:
            found = self._client.get_signing_keys(refresh=True)
        except (jwt.PyJWTError, ValueError, TypeError, OSError) as error:
            log.warning("could not fetch keys", extra={"action": "authenticate", "error": type(error).__name__})
            return
        self._keys = {str(key.key_id): key for key in found if key.algorithm_name in _ALGORITHM_OF.values()}
        self._fetched_at = self._clock()


def _user(claims: dict[str, Any]) -> User:
    subject, roles = claims["sub"], claims.get("roles")
    if not is_user_id(subject):
        raise ValueError("sub")
    return User(subject, is_admin=isinstance(roles, list) and ADMIN in roles, expires_at=_end(int(claims["exp"])))


def _end(seconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # beyond the year 9999: never

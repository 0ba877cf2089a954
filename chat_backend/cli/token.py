"""`chat-backend token`: a key to the door, for trying and for scripts."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import jwt

from chat_backend.config import ConfigError, Settings
from chat_backend.domain.user import USER_ID_RULE, is_user_id

HELP = "Print a token for a user, signed with JWT_SECRET (HS256)."
LONGEST_HOURS = 24 * 366


def add_arguments(parser: ArgumentParser) -> None:
    """Say whose token, with which role, and for how long."""
    parser.add_argument("--user", type=_user_id, required=True, help="the token's sub: who is asking")
    parser.add_argument("--role", action="append", default=[], choices=["admin"], help="admin: stats over everyone")
    parser.add_argument("--hours", type=_hours, default=1.0, metavar="N", help="how long it is good (default: 1)")


def run(arguments: Namespace, environ: Mapping[str, str]) -> int:
    """Print a token. Raises ConfigError where there is no secret to sign it with."""
    settings = Settings.from_environment(environ)
    if not settings.jwt_secret:
        raise ConfigError("JWT_SECRET is not set: a token needs a key (32 bytes or more) to be signed with.")
    print(mint(settings, arguments.user, roles=arguments.role, hours=arguments.hours))
    return 0


def mint(
    settings: Settings, user: str, *, roles: list[str] | None = None, hours: float = 1.0, now: datetime | None = None
) -> str:
    """Return a token that this deployment accepts, good for so many hours from now."""
    now = now or datetime.now(UTC)
    claims = {"sub": user, "iat": now, "exp": now + timedelta(hours=hours)}
    if roles:
        claims["roles"] = roles
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience
    return jwt.encode(claims, settings.jwt_secret, algorithm="HS256")


def _user_id(text: str) -> str:
    if not is_user_id(text):
        raise ArgumentTypeError(USER_ID_RULE)
    return text


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= LONGEST_HOURS:
        raise ArgumentTypeError(f"must be a number of hours above 0 and up to {LONGEST_HOURS}")
    return hours

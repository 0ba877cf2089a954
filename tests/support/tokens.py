"""Tokens as an identity provider would sign them."""

from __future__ import annotations

import time
from typing import Any

import jwt

KEY = "a secret of more than thirty-two bytes"


def token(user: str, *, key: str = KEY, seconds: float = 600, **claims: Any) -> str:
    """Return a user's token, good for so long."""
    return jwt.encode({"sub": user, "exp": int(time.time() + seconds)} | claims, key, "HS256")


def bearer(user: str, **more: Any) -> dict[str, str]:
    """Return the header that a client sends its token in."""
    return {"Authorization": f"Bearer {token(user, **more)}"}

"""Who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class User:
    """An identity that was proven, until when, and whether it oversees all."""

    id: str
    is_admin: bool = False
    expires_at: datetime | None = None

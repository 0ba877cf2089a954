"""What a request stands in: this process's backend and its settings."""

from __future__ import annotations

from flask import current_app

from chat_backend.bootstrap import Backend
from chat_backend.config import Settings


def backend() -> Backend:
    """Return the app's share of the outside world."""
    found: Backend = current_app.extensions["backend"]
    return found


def settings() -> Settings:
    return backend().settings

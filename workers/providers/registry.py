"""Every provider there is; a new one is a file beside this one and a line in it."""

from __future__ import annotations

from collections.abc import Callable

from chat_backend.config import Settings
from workers.providers.base import Provider
from workers.providers.local import local
from workers.providers.openai import openai
from workers.providers.openrouter import openrouter

BUILDERS: dict[str, Callable[[Settings], Provider]] = {
    "LOCAL": local,
    "OPENROUTER": openrouter,
    "OPENAI": openai,
}


def build(settings: Settings) -> dict[str, Provider]:
    """Build every provider by name; nothing is connected yet."""
    return {name: builder(settings) for name, builder in BUILDERS.items()}

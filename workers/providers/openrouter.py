"""OPENROUTER: many models behind one key."""

from __future__ import annotations

from chat_backend.config import Settings
from workers.providers.connections import bearer
from workers.providers.openai_compatible import OpenAICompatible, Options


def openrouter(settings: Settings) -> OpenAICompatible:
    """Build the provider; without a key it is not configured, and says so when asked."""
    key, title = settings.openrouter_api_key, settings.app_title
    headers = {**bearer(key), "HTTP-Referer": settings.app_url, "X-OpenRouter-Title": title, "X-Title": title}
    base_url = settings.openrouter_base_url
    return OpenAICompatible("OPENROUTER", base_url, settings, headers=headers, configured=bool(key), spell=_spell)


def _spell(options: Options) -> Options:
    # Its own word, which it translates for every model there.
    effort = options.pop("reasoning_effort", None)
    return options | ({"reasoning": {"effort": effort}} if effort else {})

"""OPENAI: OpenAI itself, or any hosted service that speaks as it does."""

from __future__ import annotations

from urllib.parse import urlsplit

from chat_backend.config import Settings
from workers.providers.connections import bearer
from workers.providers.openai_compatible import OpenAICompatible, Options


def openai(settings: Settings) -> OpenAICompatible:
    """Build the provider; without a key it is not configured, and says so when asked."""
    key, base_url = settings.openai_api_key, settings.openai_base_url
    spell = _spell if urlsplit(base_url).hostname == "api.openai.com" else dict
    return OpenAICompatible("OPENAI", base_url, settings, headers=bearer(key), configured=bool(key), spell=spell)


def _spell(options: Options) -> Options:
    # Its newer models refuse the old word; everybody else knows only that.
    limit = options.pop("max_tokens", None)
    return options | ({} if limit is None else {"max_completion_tokens": limit})

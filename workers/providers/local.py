"""LOCAL: any OpenAI-compatible server (Ollama, llama.cpp, vLLM, LM Studio)."""

from __future__ import annotations

from chat_backend.config import Settings
from workers.providers.connections import bearer
from workers.providers.openai_compatible import OpenAICompatible

_WHEN_MISSING = " If its server is Ollama, `ollama pull {model}` downloads it."


def local(settings: Settings) -> OpenAICompatible:
    """Build the provider; it is always configured, for its address has a default."""
    headers, base_url = bearer(settings.local_llm_api_key), settings.local_llm_base_url
    return OpenAICompatible("LOCAL", base_url, settings, headers=headers, when_missing=_WHEN_MISSING)

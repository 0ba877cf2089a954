"""LOCAL: any OpenAI-compatible server (Ollama, llama.cpp, vLLM, LM Studio)."""

from __future__ import annotations

from chat_backend.config import Settings
from workers.providers.connections import bearer
from workers.providers.openai_compatible import OpenAICompatible


def local(settings: Settings) -> OpenAICompatible:
    """Build the provider; it is always configured, for its address has a default."""
    headers = bearer(settings.local_llm_api_key)
    return OpenAICompatible("LOCAL", settings.local_llm_base_url, settings, headers=headers)

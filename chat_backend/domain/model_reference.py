"""`PROVIDER:model`, as settings and sessions name what to ask instead."""

from __future__ import annotations

from chat_backend.domain.enums import PROVIDERS
from chat_backend.domain.limits import MODEL_CHARACTERS


def read_model_reference(text: str) -> tuple[str, str]:
    """Return the provider and the model. Raises ValueError with what it must be."""
    provider, _, model = text.partition(":")
    if provider not in PROVIDERS or not 1 <= len(model) <= MODEL_CHARACTERS:
        raise ValueError(f"must be PROVIDER:model, the provider one of {', '.join(PROVIDERS)}")
    return provider, model

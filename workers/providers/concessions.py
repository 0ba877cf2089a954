"""What a provider does not take of our requests, learnt from its refusals."""

from __future__ import annotations

import re
from collections.abc import Collection

STREAM_OPTIONS = "stream_options"
# By it an attempt is found in the logs of who answers. OpenAI's word for a name that the client gives: in X-Request-ID
# llama-cpp-python's server takes nothing but a UUID.
REQUEST_ID = "X-Client-Request-Id"
# A system message of its own: templates of Gemma and of early Mistral models have no place for one.
SYSTEM_MESSAGE = "system"

_NO_SYSTEM = (
    r"system (role|message|prompt|instruction)s? (is |are )?(not |un)(supported|allowed|enabled)",
    r"roles must alternate",
    r"developer instruction is not enabled",
    r"does not support '?\"?(system|developer)",
    r"only user,? (and )?assistant",
)
# Statuses and words. llama.cpp says what a template refuses with a 500.
_REFUSED = {
    STREAM_OPTIONS: ({400, 422}, re.compile("stream_?options|include_?usage")),
    REQUEST_ID: ({400, 422}, re.compile("x-client-request-id")),
    SYSTEM_MESSAGE: ({400, 422, 500}, re.compile("|".join(_NO_SYSTEM))),
}
_MOST_MODELS = 1000


class FieldRefused(Exception):
    """A provider refused a request because of something that it can do without."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def named_in(status: int, body: bytes, sent: Collection[str]) -> str | None:
    """Return which of what was sent a refusal names; None if it names none of it."""
    said = body.decode("utf-8", "replace").lower()
    for name, (statuses, words) in _REFUSED.items():
        if name in sent and status in statuses and words.search(said):
            return name
    return None


class Concessions:
    """What one provider was seen to answer without, for as long as this process lives."""

    def __init__(self) -> None:
        self._fields: frozenset[str] = frozenset()
        self._models: dict[str, None] = {}

    def of(self, model: str) -> frozenset[str]:
        """Return what is left out of a request to a model."""
        return self._fields | ({SYSTEM_MESSAGE} if model in self._models else set())

    def remember(self, model: str, without: frozenset[str]) -> None:
        """Note that a request was taken without some of what we add."""
        self._fields |= without - {SYSTEM_MESSAGE}
        if SYSTEM_MESSAGE in without and model not in self._models:
            if len(self._models) >= _MOST_MODELS:  # users name models
                del self._models[next(iter(self._models))]
            self._models[model] = None

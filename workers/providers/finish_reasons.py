"""What servers say of why a reply ended, in OpenAI's words."""

from __future__ import annotations

import re
from typing import Any

from chat_backend.domain.errors import StreamBroken
from workers.providers.refusals import failure
from workers.providers.text import short

_REASONS = {
    "stop": "stop stopped stop_sequence stop_token stop_string_found matched_stop end end_turn end_of_turn end_of_text "
    "eos eos_token eos_found eot complete completed done finish finished normal",
    "length": "length max_length max_len max_tokens max_output_tokens max_completion_tokens max_new_tokens limit "
    "maximum_tokens max_predicted_tokens_reached model_length token_limit max_context context_length truncated "
    "context_length_reached context_window_exceeded model_context_window_exceeded repetition",
    "tool_calls": "tool_calls tool_call tool_use",
    "function_call": "function_call function_calls",
    "content_filter": "content_filter content_filtered content_blocked filtered moderation safety sensitive refusal "
    "recitation language blocklist blacklist prohibited_content spii image_safety image_prohibited_content "
    "guardrail_intervened error_toxic",
}
_PLAIN = re.compile(r"[^a-z0-9]")
_KNOWN = {_PLAIN.sub("", word): reason for reason, words in _REASONS.items() for word in words.split()}
# Written into every event by servers that mean that the reply has not ended.
_NONE = {"", "null", "none", "notfinished", "unspecified", "unfinished", "inprogress"}
_PREFIX = re.compile(r"^(finish)?reason")
_WITHOUT_TEXT = {"tool_calls", "function_call", "content_filter"}


def understood(reason: Any) -> str | None:
    """Return a finish reason as OpenAI spells it; None if the reply has not ended.

    Raises a retryable ProviderError for every other word: a server that broke off says so in words of its own (`abort`,
    `network_error`, `insufficient_system_resource`), and what it had written is not a whole reply.
    """
    if isinstance(reason, dict):
        reason = reason.get("type")  # SGLang
    if reason is None or reason is False:
        return None
    if isinstance(reason, str):
        # Enumerations are written as `FinishReason.STOP`, `REASON_STOP` or `FINISH_REASON_STOP`.
        word = _PREFIX.sub("", _PLAIN.sub("", reason.rpartition(".")[2].lower()))
        if word in _NONE:
            return None
        if word in _KNOWN:
            return _KNOWN[word]
        if word == "error":
            raise failure()
    raise StreamBroken("The provider broke its reply off.", error_type=_name(reason))


def explains_no_text(reason: str | None) -> bool:
    """Whether a reply that ended for this reason may hold no text."""
    return reason in _WITHOUT_TEXT


def _name(reason: Any) -> str | None:
    name = short(reason)
    return name if name and re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,49}", name) else None

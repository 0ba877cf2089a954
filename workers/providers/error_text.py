"""A provider's own sentence about an error: found, and made fit to be shown and logged."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from chat_backend.domain.errors import ProviderError
from workers.providers.text import parse

LONGEST_SENTENCE = 300
# What is looked at to find the sentence.
_MOST_CHARACTERS = 1000
_SENTENCES = ("message", "msg", "detail", "error", "error_msg", "error_message", "status_msg", "errors", "title")

_QUOTES = re.compile(r"(?:'[^']{60,}'|\"[^\"]{60,}\"|`[^`]{60,}`|“[^”]{60,}”|«[^»]{60,}»|```.*?```)", re.DOTALL)
_ADDRESS = re.compile(
    r"\b([a-z][a-z0-9+.-]*://)(?:[^\s/@\"'<>]*@)?([^\s?#\"'<>)]*)(?:[?#][^\s\"'<>)]*)?", re.IGNORECASE
)
_NAMED_SECRET = re.compile(
    r"\b((?:api[-_ ]?key|token|secret|password|authorization|bearer|credentials?)\b(?:\s+(?:provided|is|was))?"
    r"\s*[:=]?\s*(?:bearer|basic)?\s*)(?=\S*[\d*_\-.])[^\s,;\"'<>]{6,}",
    re.IGNORECASE,
)
_KEY = re.compile(r"\b(?:sk|pk|rk|ak|gsk|xai|hf|nvapi|AIza|org|proj|key|ghp|eyJ)[-_]?[\w*.-]*[\d*][\w*.-]*", re.ASCII)
# Words that look like keys: long without a break, or long with many digits; half hidden; written as escapes.
_LONG_WORD = re.compile(
    r"\b(?=\w*\d)\w{20,}|(?<![\w+/=-])(?=(?:[\w+/=-]*?\d){4})[\w+/=-]{25,}|(?<!\S)\S*\*{3}\S*|(?:\\u[0-9a-fA-F]{4})+",
    re.ASCII,
)
# Control characters, and those that hide or reorder text.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")
# A shorter run of characters that also stands in the prompt may be chance.
_ECHO = 12
# A longer prompt is not searched, for the time that takes; nothing is then kept of the sentence.
_MOST_PROMPT = 200_000
_ELLIPSIS = "…"


def error_in(body: Any) -> Any:
    """Return the error object of a body or an event; None if it has none. Some servers put it in an array."""
    if isinstance(body, list):
        return next(filter(None, (error_in(one) for one in body[:10] if isinstance(one, dict))), None)
    if not isinstance(body, dict):
        return None
    if body.get("object") == "error" or isinstance(body.get("error"), str):
        return body if body.get("error") != "" else None  # older vLLM; Ollama, Hugging Face
    return body.get("error")


def error_of(body: bytes) -> Any:
    """Return what the body of a refused request says of the error: an object, or a plain sentence."""
    try:
        found = parse(body.removeprefix(b"\xef\xbb\xbf"))
    except ProviderError:
        text = body.decode("utf-8", "replace").strip()
        return None if text.startswith("<") else text or None
    return error_in(found) or (found if isinstance(found, dict | str) else None)


def inner_error(said: Any) -> Any:
    """Return the error of the server behind a gateway, as OpenRouter passes it on; None if there is none."""
    metadata = said.get("metadata") if isinstance(said, Mapping) else None
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    if isinstance(raw, str):
        return error_of(raw[: 16 * _MOST_CHARACTERS].encode("utf-8", "replace"))
    return error_in(raw)


def sentence_in(said: Any) -> str | None:
    """Return the sentence of an error as it came, cut; None if there is none."""
    own, inner = _sentence(said), _sentence(inner_error(said))
    return f"{own}: {inner}" if own and inner else own or inner


def _sentence(said: Any, depth: int = 3) -> str | None:
    if isinstance(said, str):
        return said[:_MOST_CHARACTERS] if said.strip() else None
    if not depth:
        return None
    if isinstance(said, list):
        return next(filter(None, (_sentence(one, depth - 1) for one in said[:5])), None)
    if isinstance(said, Mapping):
        return next(filter(None, (_sentence(said.get(name), depth - 1) for name in _SENTENCES)), None)
    return None


def cleaned(sentence: str | None, *, secrets: Collection[str] = (), prompt: Sequence[str] = ()) -> str | None:
    """Make a sentence fit to be shown and logged: no key, no credentials, nothing of the prompt, one short line.

    What the prompt says is left out, and so is any long quotation: providers quote what they refuse.
    """
    if not sentence:
        return None
    # First of all: what is left out later would split what the prompt says.
    text = _without_echo(" ".join(_HIDDEN.sub(" ", sentence[:_MOST_CHARACTERS]).split()), prompt)
    for secret in secrets:
        text = text.replace(secret, _ELLIPSIS)
    text = _QUOTES.sub(_ELLIPSIS, text)
    text = _ADDRESS.sub(r"\1\2", text)
    text = _NAMED_SECRET.sub(rf"\1{_ELLIPSIS}", text)
    text = _KEY.sub(_ELLIPSIS, text)
    text = _LONG_WORD.sub(_ELLIPSIS, text)
    text = text if len(text) <= LONGEST_SENTENCE else text[: LONGEST_SENTENCE - 1].rstrip() + _ELLIPSIS
    return text if re.search(r"\w", text) else None


def _without_echo(text: str, prompt: Sequence[str]) -> str:
    """Leave out every run of characters that also stands in the prompt, and every turn that is quoted whole."""
    if sum(map(len, prompt)) > _MOST_PROMPT:
        return ""
    folded, echoed = _folded(text), [False] * len(text)
    last = len(text) - _ECHO
    for turn in prompt:
        said = _folded(" ".join(_HIDDEN.sub(" ", turn).split()))
        if 2 < len(said) <= _ECHO:
            for found in re.finditer(rf"(?<!\w){re.escape(said)}(?!\w)", folded):
                echoed[found.start() : found.end()] = [True] * len(said)
        for start in (*range(0, last, _ECHO // 2), max(last, 0)):
            if all(echoed[start : start + _ECHO]):
                continue  # within a run that was found already
            begin, end = _run(folded, start, said)
            echoed[begin:end] = [True] * (end - begin)
    return "".join(
        letter if not is_echo else _ELLIPSIS if not (at and echoed[at - 1]) else ""
        for at, (letter, is_echo) in enumerate(zip(text, echoed, strict=True))
    )


def _run(text: str, start: int, said: str) -> tuple[int, int]:
    """Return the bounds of the run around `start` that also stands in `said`; empty if it is a short one."""
    at = said.find(text[start : start + _ECHO]) if start + _ECHO <= len(text) else -1
    if at < 0:
        return start, start
    begin, end, shift = start, start + _ECHO, at - start
    while begin > 0 and begin + shift > 0 and text[begin - 1] == said[begin + shift - 1]:
        begin -= 1
    while end < len(text) and end + shift < len(said) and text[end] == said[end + shift]:
        end += 1
    return begin, end


def _folded(text: str) -> str:
    # The one letter that becomes two in lower case would shift all that follows.
    return text.replace("İ", "i").lower()

"""Addresses of OpenAI-compatible servers, as people paste them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

# Where a server's own API or an endpoint was pasted instead of the base.
_ENDPOINT = re.compile(r"/chat/completions$|(?<=/v1)/(?:models|completions|chat|responses|embeddings|messages)$")
_OLLAMA = re.compile(r"^/api/(?:chat|generate|tags|show|pull)$")
_VERSION = re.compile(r"/v\d")


def provider_address(value: str) -> str:
    """Return the base address that a pasted one means: its endpoint, slashes and quotes left out, its query kept.

    Raises ValueError with what is wrong.
    """
    text = value.strip().strip("\"'`<>").strip()
    before, _, query = text.partition("#")[0].partition("?")
    if before.count("://") > 1 or any(letter.isspace() for letter in text):
        raise ValueError("must be one address, without white space")
    try:
        parts = urlsplit(before)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(f"must be an http:// or https:// address ({error})") from None
    if not is_address:
        raise ValueError("must be an http:// or https:// address, like http://localhost:11434/v1")
    path = re.sub("/{2,}", "/", parts.path).rstrip("/")
    path = _ENDPOINT.sub("", path)
    path = _OLLAMA.sub("", path)
    return urlunsplit(parts._replace(path=path, query=query))


def candidates(address: str) -> tuple[str, ...]:
    """Return the base addresses that one may mean, itself first: many are given without their `/v1`."""
    parts = urlsplit(address)
    if _VERSION.search(parts.path):
        return (address,)
    paths = [parts.path, f"{parts.path}/v1", *(["/v1"] if parts.path == "/api" else [])]
    return tuple(urlunsplit(parts._replace(path=path)) for path in paths)


def endpoint(address: str, path: str) -> str:
    """Return the address of an endpoint under a base address, whose query goes along."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))

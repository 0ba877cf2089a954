"""Addresses of providers, as people paste them."""

from __future__ import annotations

import pytest

from chat_backend.domain.provider_address import candidates, endpoint, provider_address


@pytest.mark.parametrize(
    ("pasted", "address"),
    [
        ("http://localhost:11434/v1", "http://localhost:11434/v1"),
        ("http://localhost:11434/v1/", "http://localhost:11434/v1"),
        ("  http://localhost:11434/v1 \n", "http://localhost:11434/v1"),
        ('"http://localhost:11434/v1"', "http://localhost:11434/v1"),
        ("<http://localhost:11434/v1>", "http://localhost:11434/v1"),
        ("http://localhost:11434//v1//", "http://localhost:11434/v1"),
        ("HTTP://localhost:11434/v1", "http://localhost:11434/v1"),
        ("http://localhost:11434", "http://localhost:11434"),
        ("http://localhost:11434/", "http://localhost:11434"),
        ("http://localhost:11434/v1/chat/completions", "http://localhost:11434/v1"),
        ("http://localhost:11434/v1/chat/completions/", "http://localhost:11434/v1"),
        ("http://localhost:11434/v1/models", "http://localhost:11434/v1"),
        ("http://localhost:11434/v1/completions", "http://localhost:11434/v1"),
        ("http://localhost:11434/api/chat", "http://localhost:11434"),
        ("http://localhost:11434/api/generate", "http://localhost:11434"),
        ("https://h/v1?api-version=2024-10-21", "https://h/v1?api-version=2024-10-21"),
        ("https://h/v1/chat/completions?api-version=1#x", "https://h/v1?api-version=1"),
        ("https://me:p%40ss@h/v1", "https://me:p%40ss@h/v1"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
        # Paths that are right as they are.
        ("https://api.deepseek.com", "https://api.deepseek.com"),
        ("https://h/api/v1", "https://h/api/v1"),
        ("https://h/openai/deployments/x", "https://h/openai/deployments/x"),
        ("https://r.services.ai.azure.com/models", "https://r.services.ai.azure.com/models"),
        ("https://g.example/v1beta/openai", "https://g.example/v1beta/openai"),
        ("https://open.bigmodel.cn/api/paas/v4", "https://open.bigmodel.cn/api/paas/v4"),
        ("https://h/api", "https://h/api"),
    ],
)
def test_what_was_pasted_becomes_the_base(pasted: str, address: str) -> None:
    assert provider_address(pasted) == address
    assert provider_address(address) == address


@pytest.mark.parametrize(
    "pasted",
    [
        *("localhost:11434", "//localhost/v1", "ftp://h/v1", "http://", "http:///v1", "v1", ""),
        *("http://h:port/v1", "http://h:99999/v1", "http://h:0/v1", "http://[::1/v1"),
        *("http://http://h/v1", "http://h /v1", "http://h/v1 http://g/v1"),
    ],
)
def test_what_is_no_address_is_refused_with_a_reason(pasted: str) -> None:
    with pytest.raises(ValueError, match=r"^must be "):
        provider_address(pasted)


@pytest.mark.parametrize(
    ("address", "others"),
    [
        ("http://h:1", ["http://h:1/v1"]),
        ("http://h:1?a=b", ["http://h:1/v1?a=b"]),
        ("https://openrouter.ai/api", ["https://openrouter.ai/api/v1", "https://openrouter.ai/v1"]),
        ("https://h/openai/deployments/x", ["https://h/openai/deployments/x/v1"]),
        ("http://h:1/v1", []),
        ("https://h/api/v1", []),
        ("https://h/v1beta/openai", []),
        ("https://h/api/paas/v4", []),
    ],
)
def test_an_address_without_a_version_may_mean_another(address: str, others: list[str]) -> None:
    assert candidates(address) == (address, *others)


def test_an_endpoint_keeps_the_query() -> None:
    assert endpoint("https://h/v1?api-version=1", "/models") == "https://h/v1/models?api-version=1"
    assert endpoint("http://h:1", "/models") == "http://h:1/models"

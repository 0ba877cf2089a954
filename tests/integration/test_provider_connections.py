"""Addresses, certificates and explanations of providers, over real HTTP and TLS."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from chat_backend.cli import up
from chat_backend.config import ConfigError, Settings
from chat_backend.domain.errors import CertificateRefused, ModelMissing, ProviderError
from chat_backend.domain.prompt import PromptRequest, Turn
from tests.support.certificates import Authority, authority
from tests.support.provider_stub import Stub, provider_stub
from workers.providers.registry import build

SETTINGS = Settings(llm_first_token_timeout_seconds=5.0, openai_api_key="a-key", openrouter_api_key="a-key")


@pytest.fixture(scope="module")
def stub() -> Stub:
    with provider_stub() as running:
        yield running


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("certificates"))


def ask(settings: Settings, name: str = "LOCAL", *, model: str = "m", content: str = "stub:tag=t,tokens=2") -> str:
    """Ask a provider twice and return its second reply."""

    async def twice() -> str:
        provider = build(settings)[name]
        try:
            for _ in range(2):
                texts: list[str] = []
                await provider.stream(PromptRequest(model, (Turn("user", content),)), texts.append)
            return "".join(texts)
        finally:
            await provider.aclose()

    return uvloop.run(twice())


def fail(settings: Settings, name: str = "LOCAL", **more: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        ask(settings, name, **more)
    return caught.value


def models(settings: Settings) -> list[str]:
    async def once() -> list[str]:
        provider = build(settings)["LOCAL"]
        try:
            return await provider.models()
        finally:
            await provider.aclose()

    return uvloop.run(once())


# Addresses


@pytest.mark.parametrize(
    "form",
    ["{}/v1", "{}/v1/", "  {}/v1 ", "{}", "{}/", "{}/v1/chat/completions", "{}/v1?api-version=1", "{}?a=b", "{}/bare"],
)
def test_addresses_work_as_people_paste_them(stub: Stub, form: str) -> None:
    pasted = form.format(stub.base_url.removesuffix("/v1"))
    settings = Settings.from_environment({"AUTH_MODE": "dev", "LOCAL_LLM_BASE_URL": pasted})
    stub.clear()

    assert ask(settings) == "t.1 t.2 "
    assert "stub" in models(settings)
    # Only an address without a version needs a look at the models before anything else, once in each client.
    looks = 1 if "v1" in form else 3
    assert stub.models_asked == looks


def test_an_address_with_nothing_there_says_so(stub: Stub) -> None:
    error = fail(replace(SETTINGS, local_llm_base_url=stub.base_url.replace("/v1", "/elsewhere")))

    assert not error.retryable
    assert error.message == "There is nothing at the provider's address; its base URL may be wrong (HTTP 404)."


# Certificates


def test_a_private_authority_is_trusted_where_a_setting_names_it(private: Authority) -> None:
    with provider_stub(tls=private.server()) as secure:
        ca_file = str(private.ca_file)
        local = replace(SETTINGS, local_llm_base_url=secure.base_url, local_llm_ca_file=ca_file)
        openai = replace(SETTINGS, openai_base_url=secure.base_url, openai_ca_file=ca_file)
        openrouter = replace(SETTINGS, openrouter_base_url=secure.base_url, ssl_cert_file=ca_file)

        replies = [ask(local), ask(openai, "OPENAI"), ask(openrouter, "OPENROUTER")]

    assert replies == ["t.1 t.2 "] * 3


@pytest.mark.parametrize(
    ("server", "trusts", "why"),
    [
        ({}, False, "unable to get local issuer certificate"),
        ({"address": "127.0.0.2"}, True, "IP address mismatch"),
        ({"expired": True}, True, "certificate has expired"),
    ],
)
def test_a_certificate_that_is_not_trusted_is_named(
    private: Authority, server: dict[str, object], trusts: bool, why: str
) -> None:
    ca_file = str(private.ca_file) if trusts else ""
    with provider_stub(tls=private.server(**server)) as secure:
        settings = replace(SETTINGS, local_llm_base_url=secure.base_url, local_llm_ca_file=ca_file)
        error = fail(settings)
        with pytest.raises(CertificateRefused):
            models(settings)
        # It is there, though: no demo model is to stand in for it.
        assert up._anyone_at(f"{secure.base_url}/models")

    assert (error.code, error.retryable) == ("PROVIDER_CERTIFICATE", False)
    assert error.message.startswith("The provider's certificate can't be trusted: ")
    assert why in error.message


@pytest.mark.parametrize("name", ["LOCAL_LLM_CA_FILE", "OPENROUTER_CA_FILE", "OPENAI_CA_FILE", "SSL_CERT_FILE"])
def test_a_file_of_certificates_is_checked_at_the_start(tmp_path: Path, private: Authority, name: str) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")

    for path in (tmp_path / "missing.pem", tmp_path, empty):
        with pytest.raises(ConfigError, match=f"^{name} must be a file of certificates"):
            Settings.from_environment({"AUTH_MODE": "dev", name: str(path)})
    settings = Settings.from_environment({"AUTH_MODE": "dev", name: str(private.ca_file)})
    assert getattr(settings, name.lower()) == str(private.ca_file)


# Explanations


def test_a_missing_model_is_named_with_what_to_do(stub: Stub) -> None:
    everywhere = dict.fromkeys(("local_llm_base_url", "openai_base_url"), stub.base_url)
    settings, content = replace(SETTINGS, **everywhere), "stub:fail=404,error_code=model_not_found"

    local, openai = fail(settings, model="qwen3:4b", content=content), fail(settings, "OPENAI", content=content)

    assert isinstance(local, ModelMissing)
    assert local.message == (
        "The provider does not have the model qwen3:4b (HTTP 404)."
        " If its server is Ollama, `ollama pull qwen3:4b` downloads it."
    )
    assert openai.message == "The provider does not have the model m (HTTP 404)."


def test_the_provider_s_sentence_is_kept_without_our_key_and_the_prompt(stub: Stub) -> None:
    settings = replace(SETTINGS, local_llm_base_url=stub.base_url, local_llm_api_key="plain-key")

    error = fail(settings, content="what plain-key is, and other words stub:fail=400")

    assert error.provider_message == "CANARY you said: …"


def test_a_short_key_does_not_tear_the_sentence(stub: Stub) -> None:
    settings = replace(SETTINGS, local_llm_base_url=stub.base_url, local_llm_api_key="s")

    assert fail(settings, content="my own words stub:fail=400").provider_message == "CANARY you said: …"

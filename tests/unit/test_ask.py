"""What one call came to: the provider's own counts, and estimates where it began to answer and left them out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from uuid import uuid4

import pytest

from chat_backend.domain.enums import Purpose
from chat_backend.domain.errors import ErrorCode, ProviderError, ProviderRefused, ProviderTimeout, StreamBroken
from chat_backend.domain.prompt import PromptRequest, Turn
from chat_backend.domain.usage import Usage
from chat_backend.services.attempts import Claim
from workers.ask import Ending, ask
from workers.live_publisher import LivePublisher
from workers.providers.base import Completion
from workers.running import Run

PROMPT = (Turn("user", "x" * 40),)  # 14 tokens, as we estimate


class Told:
    """A provider that does what it is told, and has told what it is told to have."""

    name, configured = "LOCAL", True

    def __init__(self, text: str = "", error: Exception | None = None, **said: Any) -> None:
        self._text, self._error, self._said = text, error, said

    async def stream(
        self, request: PromptRequest, on_text: Callable[[str], None], known: Completion | None = None
    ) -> Completion:
        assert known is not None
        for name, value in self._said.items():
            setattr(known, name, value)
        if self._text:
            on_text(self._text)
        if self._error:
            raise self._error
        return known


def ending(provider: Told) -> Ending:
    claim = Claim(
        uuid4(), uuid4(), uuid4(), 1, "LOCAL", PromptRequest("m", PROMPT), purpose=Purpose.TITLE, user_id="ann"
    )

    async def asked() -> Ending:
        run = Run(claim.job_id, asyncio.get_running_loop())
        # A call that only helps shows nothing to anyone.
        return await ask(run, claim, providers=cast(Any, {"LOCAL": provider}), publisher=cast(LivePublisher, None))

    return asyncio.run(asked())


def counts(provider: Told) -> Usage:
    return ending(provider).measured.counts


def test_a_provider_s_own_counts_stand() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3}

    assert counts(Told("y" * 80, http_status=200, usage=usage)) == Usage(7, 3)


def test_only_what_a_provider_left_out_is_estimated() -> None:
    usage = {"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 5}}

    found = counts(Told("y" * 80, http_status=200, usage=usage))

    assert found == Usage(7, 20, cached_tokens=5, estimated=True)


def test_what_a_model_thinks_aloud_is_part_of_the_estimate() -> None:
    assert counts(Told("y" * 80, http_status=200, thought_bytes=41)) == Usage(14, 20 + 11, estimated=True)


@pytest.mark.parametrize("http_status", [None, 400])
def test_a_call_that_was_refused_has_no_counts(http_status: int | None) -> None:
    refused = Told(error=ProviderRefused("No.", http_status=http_status), http_status=http_status)

    assert counts(refused) == Usage()


def test_nor_has_one_that_was_refused_inside_a_successful_response_before_the_first_word() -> None:
    refused = ProviderRefused("No.", http_status=200)

    assert counts(Told(error=refused, http_status=200)) == Usage()
    assert counts(Told("y" * 8, error=refused, http_status=200)) == Usage(14, 2, estimated=True)
    assert counts(Told(error=refused, http_status=200, thought_bytes=8)) == Usage(14, 2, estimated=True)


@pytest.mark.parametrize("error", [StreamBroken("It broke."), ProviderTimeout("Silence.")])
def test_one_that_fell_silent_after_it_was_accepted_has_an_estimate(error: ProviderError) -> None:
    assert counts(Told(error=error, http_status=200)) == Usage(14, 0, estimated=True)


def test_numbers_beyond_reason_are_not_counted() -> None:
    absurd = ending(Told("y", http_status=200, usage={"cost": 10**400, "prompt_tokens": 10**400}))

    assert absurd.error is None
    assert (absurd.measured.counts.cost, absurd.measured.counts.prompt_tokens) == (None, 14)


def test_exception_of_ours_is_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    ended = ending(Told(error=OverflowError("too large: what ann wrote"), http_status=200))

    assert ended.error is not None
    assert (ended.error.code, ended.error.retryable) == (ErrorCode.INTERNAL_ERROR, False)
    assert "in stream" in caplog.text
    assert "OverflowError" in caplog.text
    assert "what ann wrote" not in caplog.text

"""Ask a provider for one attempt, and tell how it ended. Runs on the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass

from chat_backend.domain.enums import Purpose
from chat_backend.domain.errors import ErrorCode, InternalFault, ProviderError, ProviderRefused, ProviderTimeout
from chat_backend.services.attempts import Claim, Measured
from workers.faults import log_fault
from workers.live_publisher import LivePublisher, LiveReply
from workers.providers.base import Completion, Provider
from workers.running import Run, Stop

# Nobody waits longer than this for a summary or a title.
ASIDE_SECONDS = 60.0


@dataclass(frozen=True)
class Ending:
    """How an attempt ended: with an error, stopped, or, with neither, whole."""

    measured: Measured
    error: ProviderError | None = None
    stop: Stop | None = None


async def ask(
    run: Run,
    claim: Claim,
    *,
    providers: Mapping[str, Provider],
    publisher: LivePublisher,
    on_first: Callable[[], None] | None = None,
) -> Ending:
    """Stream one reply, or what helps with it. Never raises: what went wrong is in the ending.

    `on_first` is called on the loop when the first text comes; it must not block.
    """
    quiet = claim.purpose != Purpose.REPLY
    ids = (claim.session_id, claim.message_id, claim.number)
    live = run.live = LiveReply(*ids, publisher, quiet=quiet, on_first=on_first)
    began = time.monotonic()
    known = Completion()
    call = _stream(claim, live, providers, known)
    task = asyncio.ensure_future(_aside(call) if quiet else call)
    run.begin(claim, task)
    try:
        await task
        ending = Ending(_measured(claim, live, began, known))
    except ProviderError as error:
        ending = Ending(_measured(claim, live, began, known, error=error), error=error)
    except asyncio.CancelledError:
        ending = Ending(_measured(claim, live, began, known), stop=run.stop or Stop.HANDED_OVER)
    except Exception as error:
        log_fault("internal error in an attempt", error, job_id=claim.job_id, provider=claim.provider)
        ending = Ending(_measured(claim, live, began, known), error=InternalFault(http_status=known.http_status))
    run.end()
    if not quiet:
        await publisher.finish(live)
    return ending


async def _aside(call: Coroutine[object, object, None]) -> None:
    try:
        await asyncio.wait_for(call, ASIDE_SECONDS)
    except TimeoutError:
        # Our patience ended, not the provider's health: it may take as long over replies, and is not to be left alone.
        sentence = "The provider took too long over what only helps."
        raise ProviderTimeout(sentence, retryable=False) from None


async def _stream(claim: Claim, live: LiveReply, providers: Mapping[str, Provider], known: Completion) -> None:
    provider = providers.get(claim.provider)  # None: a newer release knows it
    if provider is None or not provider.configured:
        code = ErrorCode.PROVIDER_NOT_CONFIGURED
        raise ProviderError(f"The provider {claim.provider} is not configured.", code=code, retryable=False)
    await provider.stream(claim.request, live.write, known)


def _measured(
    claim: Claim, live: LiveReply, began: float, known: Completion, *, error: ProviderError | None = None
) -> Measured:
    text, counts = live.text(), known.counts
    begun = bool(text or known.thought_bytes)
    # Who refuses inside a successful response, before the first word, bills nothing.
    if known.http_status == 200 and (begun or not isinstance(error, ProviderRefused)):
        counts = counts.filled(claim.request.turns, text, thought_bytes=known.thought_bytes)
    return Measured(
        text=text,
        duration_ms=_ms(time.monotonic() - began),
        time_to_first_token_ms=None if live.first_at is None else _ms(live.first_at - began),
        counts=counts,
        usage=known.usage,
        http_status=known.http_status,
        generation_id=known.generation_id,
        finish_reason=known.finish_reason,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

"""Ask a provider for one attempt, and tell how it ended. Runs on the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from chat_backend.domain.errors import ErrorCode, ProviderError
from chat_backend.services.attempts import Claim, Measured
from workers.live_publisher import LivePublisher, LiveReply
from workers.providers.base import Completion, Provider
from workers.running import Run, Stop

log = logging.getLogger(__name__)


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
) -> Ending:
    """Stream one reply. Never raises: what went wrong is in the ending."""
    live = run.live = LiveReply(claim.session_id, claim.message_id, claim.number, publisher)
    began = time.monotonic()
    task = asyncio.ensure_future(_stream(claim, live, providers))
    run.begin(claim, task)
    try:
        completion = await task
        ending = Ending(_measured(live, began, completion))
    except ProviderError as error:
        ending = Ending(_measured(live, began), error=error)
    except asyncio.CancelledError:
        ending = Ending(_measured(live, began), stop=run.stop or Stop.HANDED_OVER)
    except Exception:
        # A provider's bug must not leave the job hanging until its lease ends.
        log.exception("a provider stumbled", extra={"action": "ask", "provider": claim.provider})
        ending = Ending(_measured(live, began), error=ProviderError("The provider's answer could not be read."))
    run.end()
    await publisher.finish(live)
    return ending


async def _stream(claim: Claim, live: LiveReply, providers: Mapping[str, Provider]) -> Completion:
    provider = providers[claim.provider]
    if not provider.configured:
        code = ErrorCode.PROVIDER_NOT_CONFIGURED
        raise ProviderError(f"The provider {claim.provider} is not configured.", code=code, retryable=False)
    return await provider.stream(claim.request, live.write)


def _measured(live: LiveReply, began: float, completion: Completion | None = None) -> Measured:
    done = completion or Completion()
    return Measured(
        text=live.text(),
        duration_ms=_ms(time.monotonic() - began),
        time_to_first_token_ms=None if live.first_at is None else _ms(live.first_at - began),
        prompt_tokens=done.prompt_tokens,
        completion_tokens=done.completion_tokens,
        usage=done.usage,
        http_status=200 if completion else None,
        generation_id=done.generation_id,
        finish_reason=done.finish_reason,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

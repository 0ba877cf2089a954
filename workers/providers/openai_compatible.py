"""The client that every OpenAI-compatible provider shares."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import orjson

from chat_backend.config import Settings
from chat_backend.domain.errors import (
    ErrorCode,
    ModelMissing,
    ProviderError,
    ProviderRefused,
    ProviderTimeout,
    ReplyTooLong,
    StreamBroken,
)
from chat_backend.domain.prompt import PromptRequest, without_system
from chat_backend.domain.provider_address import candidates, endpoint
from workers.providers.base import Completion
from workers.providers.concessions import (
    REQUEST_ID,
    STREAM_OPTIONS,
    SYSTEM_MESSAGE,
    Concessions,
    FieldRefused,
    named_in,
)
from workers.providers.connections import (
    CONNECTING,
    PIECE_BYTES,
    TRANSPORT_ERRORS,
    Connecting,
    open_client,
    parts,
    pieces,
    translated,
    was_stale,
    without_credentials,
)
from workers.providers.deadlines import Deadlines, Limits, Stage
from workers.providers.error_text import cleaned, error_of
from workers.providers.model_list import model_names
from workers.providers.refusals import refusal
from workers.providers.reply import MOST_BODY_BYTES, ReplyReader

# Some servers quote the whole prompt when they refuse it.
MOST_ERROR_BYTES = 64 * 1024
ERROR_BODY_SECONDS = 1.0
SHORTEST_SECRET = 6
MODELS_SECONDS = 4.0
# Other values are no encodings at all (`utf-8`, nothing), and the body is plain.
COMPRESSED = {"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"}

Options = dict[str, Any]

logger = logging.getLogger(__name__)


class OpenAICompatible:
    """One provider, over one pool of connections that is opened in the loop that first uses it."""

    def __init__(
        self,
        name: str,
        base_url: str,
        settings: Settings,
        *,
        headers: Mapping[str, str],
        configured: bool = True,
        spell: Callable[[Options], Options] = dict,
        when_missing: str = "",
    ) -> None:
        """Take the provider's address, what is sent along with every request, and how it spells the options.

        `when_missing` is what to do about a `{model}` that it does not have.
        """
        self._when_missing = when_missing
        self.name = name
        self.configured = configured
        self._spell = spell
        address, credentials = without_credentials(base_url)
        # What the address may mean; one is left once it is known.
        self._addresses = candidates(address)
        self._headers = {**credentials, **headers}
        # A very short key, as local servers may have, stands in many words.
        keys = [value.rpartition(" ")[2] for name, value in self._headers.items() if name == "Authorization"]
        self._secrets = [key for key in keys if len(key) >= SHORTEST_SECRET]
        self._settings = settings
        self._concessions = Concessions()
        self._opened: httpx.AsyncClient | None = None

    async def stream(
        self, request: PromptRequest, on_text: Callable[[str], None], known: Completion | None = None
    ) -> Completion:
        """Ask for a reply; hand its text to `on_text` as it arrives. See base.Provider."""
        reply = ReplyReader(on_text, known)
        try:
            await self._complete(request, reply)
        except ProviderError as error:
            error.http_status = error.http_status or reply.known.http_status
            self._explain(error, request)
            raise
        return reply.known

    def spelled(self, options: Mapping[str, Any]) -> Options:
        """Return options in the provider's own words."""
        return self._spell(dict(options))

    async def models(self) -> list[str]:
        """List the models there are. Raises ProviderError."""
        try:
            async with asyncio.timeout(MODELS_SECONDS):
                return await self._models(await self._address())
        except ProviderError as error:
            self._clean(error)
            raise
        except TimeoutError:
            raise ProviderTimeout("The provider was silent for too long.") from None
        except TRANSPORT_ERRORS as error:
            raise translated(error, None) from error

    async def aclose(self) -> None:
        """Close every connection."""
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None

    async def _complete(self, request: PromptRequest, reply: ReplyReader) -> None:
        try:
            async with Deadlines(self._limits(request)) as deadlines:
                await self._read(request, reply, deadlines)
        except TimeoutError:
            if not reply.may_be_whole:
                raise ProviderTimeout("The provider was silent for too long.") from None
        except TRANSPORT_ERRORS as error:
            if not reply.is_whole:
                raise translated(error, reply.known.http_status) from error
        except ProviderError as error:
            # What follows the whole text, counts or a farewell, is not worth throwing the reply away for.
            if not reply.is_whole or isinstance(error, ReplyTooLong):
                raise
        reply.conclude()

    def _limits(self, request: PromptRequest) -> Limits:
        settings, factor = self._settings, 2 if request.patient else 1
        return Limits(
            first=factor * settings.llm_first_token_timeout_seconds,
            between=settings.llm_token_timeout_seconds,
            total=settings.llm_total_timeout_seconds,
        )

    async def _read(self, request: PromptRequest, reply: ReplyReader, deadlines: Deadlines) -> None:
        """Ask; again without what the provider names as refused, and once more if a kept connection was closed."""
        without = self._concessions.of(request.model)
        connecting = Connecting()
        while True:
            token = CONNECTING.set(connecting)
            try:
                await self._ask(request, reply, deadlines, without)
                return
            except FieldRefused as refused:
                without |= {refused.name}
                reply.known.http_status = None
                deadlines.heard(Stage.WAITING)
            except TRANSPORT_ERRORS as error:
                if reply.known.http_status is not None or not was_stale(error, connecting):
                    raise
                connecting = Connecting(fresh=True)
            finally:
                CONNECTING.reset(token)

    async def _ask(
        self, request: PromptRequest, reply: ReplyReader, deadlines: Deadlines, without: frozenset[str]
    ) -> None:
        body = _body(request, self.spelled(request.options), without)
        name = "" if REQUEST_ID in without else request.name
        url = endpoint(await self._address(), "/chat/completions")
        async with self._request("POST", url, body, name=name) as response:
            reply.begin(response.status_code, response.headers)
            # The answer to a refused request is known: a body that hangs must not turn it into a timeout.
            deadlines.heard(reply.stage if response.is_success else Stage.ENDING)
            await self._check(response, _added(request) - without)
            self._concessions.remember(request.model, without)
            async with parts(response) as received:
                async for part in received:
                    if reply.feed(part):
                        deadlines.heard(reply.stage)
            reply.end()

    async def _address(self) -> str:
        """Return the address to ask: of those that the configured one may mean, the first that lists its models."""
        for address in self._addresses if len(self._addresses) > 1 else ():
            with contextlib.suppress(ProviderError, TimeoutError, *TRANSPORT_ERRORS):
                async with asyncio.timeout(MODELS_SECONDS / 2):
                    await self._models(address)
                self._addresses = (address,)
                break
        return self._addresses[0]

    async def _models(self, address: str) -> list[str]:
        body = bytearray()
        async with self._request("GET", endpoint(address, "/models")) as response:
            await self._check(response)
            async with parts(response) as received:
                async for part in received:
                    body += part
                    if len(body) > MOST_BODY_BYTES:
                        raise StreamBroken("The provider's list of models is too long.", http_status=200)
        return model_names(bytes(body))

    def _request(
        self, method: str, url: str, body: bytes | None = None, *, name: str = ""
    ) -> AbstractAsyncContextManager[httpx.Response]:
        if not self.configured:
            sentence = f"The provider {self.name} is not configured."
            raise ProviderRefused(sentence, code=ErrorCode.PROVIDER_NOT_CONFIGURED)
        headers = {REQUEST_ID: name} if name else {}
        if body is None or len(body) <= PIECE_BYTES:
            return self._client().stream(method, url, content=body, headers=headers)
        # In one piece a long prompt would hold up every other reply of the loop.
        headers["Content-Length"] = str(len(body))
        return self._client().stream(method, url, content=pieces(body), headers=headers)

    async def _check(self, response: httpx.Response, added: Collection[str] = ()) -> None:
        if not response.is_success:
            body = await _error_body(response)
            error = refusal(response.status_code, response.headers, error_of(body))
            facts = {"provider": self.name, "status": response.status_code, "said": error.error_type}
            logger.info("A provider refused a request", extra={"action": "provider_refused", **facts})
            if name := named_in(response.status_code, body, added):
                raise FieldRefused(name)
            raise error
        if response.headers.get("content-encoding", "").strip().lower() in COMPRESSED:
            raise StreamBroken("The provider compressed what must be plain.", http_status=response.status_code)

    def _explain(self, error: ProviderError, request: PromptRequest) -> None:
        """Complete an error with what only the request tells: which model, and what of the prompt to leave out."""
        self._clean(error, [turn.content for turn in request.turns])
        if isinstance(error, ModelMissing):
            model = " ".join(request.model.split())
            error.message = f"The provider does not have the model {model} (HTTP {error.http_status})."
            error.message += self._when_missing.format(model=model)

    def _clean(self, error: ProviderError, prompt: Sequence[str] = ()) -> None:
        error.provider_message = cleaned(error.provider_message, secrets=self._secrets, prompt=prompt)

    def _client(self) -> httpx.AsyncClient:
        if self._opened is None:
            self._opened = open_client(self._settings, self._headers, ca_file=self._settings.ca_file_of(self.name))
        return self._opened


def _added(request: PromptRequest) -> set[str]:
    """Return what of a request the provider could do without."""
    has_system = any(turn.role == "system" for turn in request.turns[:1])
    return {STREAM_OPTIONS} | ({REQUEST_ID} if request.name else set()) | ({SYSTEM_MESSAGE} if has_system else set())


def _body(request: PromptRequest, options: Options, without: frozenset[str]) -> bytes:
    turns = without_system(request.turns) if SYSTEM_MESSAGE in without else request.turns
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
        "stream": True,
    }
    if STREAM_OPTIONS not in without:
        body[STREAM_OPTIONS] = {"include_usage": True}
    return orjson.dumps(body | options)


async def _error_body(response: httpx.Response) -> bytes:
    """Read what a refusal says of itself, if it says it soon and briefly."""
    body = bytearray()
    with contextlib.suppress(TimeoutError, *TRANSPORT_ERRORS):
        async with asyncio.timeout(ERROR_BODY_SECONDS), parts(response) as received:
            async for part in received:
                body += part
                if len(body) > MOST_ERROR_BYTES:
                    return b""
    return bytes(body)

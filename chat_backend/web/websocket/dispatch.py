"""From a client's frame to a service."""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

from chat_backend.domain.enums import Action
from chat_backend.domain.errors import ChatError, Forbidden, InvalidInput, MalformedRequest
from chat_backend.domain.strict_json import parse_object, refuse_unstorable
from chat_backend.domain.trace import current_trace, traced
from chat_backend.models import LlmJob
from chat_backend.protocol.commands import read_command
from chat_backend.protocol.events import error, message_shape, message_update, pong
from chat_backend.services import llm_jobs, messages
from chat_backend.services.access import WRITE, granted, no_such, session_of
from chat_backend.services.idempotency import Intent
from chat_backend.web.errors import error_object
from chat_backend.web.rate_limits import RateLimits
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.hub import Hub

log = logging.getLogger(__name__)


class Dispatch:
    """Carries out what one connection says."""

    def __init__(self, hub: Hub, connection: Connection, rates: RateLimits) -> None:
        self._hub = hub
        self._rates = rates
        self._backend = hub.backend
        self._connection = connection
        self._typing = False

    def __call__(self, data: str | bytes) -> None:
        """Carry out one frame; whatever is wrong with it is answered by an error frame."""
        with traced(uuid4().hex):
            self._carry_out(data)

    def _carry_out(self, data: str | bytes) -> None:
        trace_id, request_id = current_trace() or "", None
        try:
            if isinstance(data, bytes):
                raise InvalidInput("Frames must be text.")
            frame = parse_object(data)
            request_id = frame.get("request_id")
            refuse_unstorable(frame)
            kind, fields = read_command(frame)
            getattr(self, f"_{kind}")(**fields)
        except ChatError as fault:
            self._connection.say(error(error_object(fault, trace_id), request_id))
        except Exception:  # one frame must not end a connection
            log.exception("a frame failed", extra={"action": "dispatch"})
            self._connection.say(error(error_object(ChatError("Something went wrong."), trace_id), request_id))

    def _send_message(self, request_id: str | None, **fields: Any) -> None:
        intent = self._intent(request_id, fields | {"role": "user"}) if request_id is not None else None
        count = self._rates.ask if fields["process"] else self._rates.command
        count(self._connection.user)
        with self._backend.unit_of_work() as uow:
            sent = messages.send(
                uow,
                self._connection.session_id,
                self._connection.user,
                intent=intent,
                request_id=request_id,
                fallbacks=self._backend.settings.llm_fallbacks,
                quota=self._backend.settings.quota,
                **fields,
            )
        if sent.replayed:
            again = message_update(message_shape(sent.message), Action.NEW_MESSAGE)
            self._connection.say(again | {"request_id": request_id, "replayed": True})
        if self._typing:  # feeds end it when they show the message, but the hub does not know
            self._typing = False
            self._tell_typing(False)

    def _intent(self, request_id: str, fields: dict[str, Any]) -> Intent:
        kept_seconds = self._backend.settings.idempotency_retention_seconds
        try:
            return messages.send_intent(request_id, fields, kept_seconds=kept_seconds)
        except MalformedRequest as fault:
            message = "A request_id is 1 to 255 visible ASCII characters."
            raise MalformedRequest(message, code=fault.code, field="request_id") from None

    def _cancel(self, request_id: str | None, job_id: Any) -> None:
        connection = self._connection
        self._rates.command(connection.user)
        with self._backend.unit_of_work() as uow:
            if session_of(uow.session, LlmJob, job_id, connection.user) != connection.session_id:
                raise no_such("job")
            llm_jobs.cancel(uow, job_id, connection.user)

    def _typing_start(self, request_id: str | None) -> None:
        self._check_may_write()
        self._typing = True
        self._tell_typing(True)

    def _typing_stop(self, request_id: str | None) -> None:
        self._check_may_write()
        self._typing = False
        self._tell_typing(False)

    def _check_may_write(self) -> None:
        role = self._connection.role
        if granted(role) < WRITE:
            raise Forbidden(f"As {role} of this chat session you may not do this.")

    def _tell_typing(self, is_typing: bool) -> None:
        connection = self._connection
        self._hub.tell_typing(connection.session_id, connection.user.id, is_typing)

    def _ping(self, request_id: str | None) -> None:
        self._connection.say(pong(self._connection.offset))

    def gone(self) -> None:
        """The typist, if it was one, has left."""
        if self._typing:
            self._tell_typing(False)

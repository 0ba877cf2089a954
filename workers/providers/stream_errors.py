"""Errors inside a successful response, in the forms that servers give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workers.providers.refusals import error_in

_FIELDS = ("detail", "errors", "error_msg", "error_message", "exception")
_FINE = {"", "0", "ok", "success", "none"}
_FAULTS = {"error", "failed", "failure"}


def error_in_event(event: Mapping[str, Any]) -> Any:
    """Return the error that an event reports; None where it reports none."""
    if error := error_in(event):
        return error
    if isinstance(base := event.get("base_resp"), dict) and _is_fault(base.get("status_code")):
        return {"code": base["status_code"], "message": base.get("status_msg")}  # MiniMax
    if event.get("choices"):
        return None
    if found := next(filter(None, map(event.get, _FIELDS)), None):
        return found[0] if isinstance(found, list) else found
    code = next((event[name] for name in ("code", "error_code", "status_code") if name in event), None)
    if _is_fault(code) or event.get("success") is False or _FAULTS & {_word(event.get(n)) for n in ("type", "status")}:
        return event
    said = event.get("message") or event.get("msg")
    # Without a code or a type a message is all there is: gateways say in it that they failed.
    return event if isinstance(said, str) and not event.keys() & {"type", "status", "code"} else None


def _is_fault(code: Any) -> bool:
    word = _word(code)
    return word is not None and word not in _FINE and not (word.isdigit() and 200 <= int(word[:9]) < 300)


def _word(value: Any) -> str | None:
    return str(value).lower()[:40] if isinstance(value, str | int) and not isinstance(value, bool) else None

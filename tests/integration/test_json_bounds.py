"""One bound for JSON: what is taken can be written and read by every part that it passes, and the rest is refused."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import orjson
import pytest
from flask import Flask
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chat_backend.domain.user import User
from chat_backend.services import events
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.dispatch import Dispatch
from tests.support.rest import Rest
from tests.support.session_world import PaperOutbox, frames
from workers.providers.text import parse

NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(2**63 - 2, 2**64 + 2).map(str),
    st.integers(-(2**64), -(2**63) + 2).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.builds("{}e{}".format, st.integers(-20, 20), st.integers(-500, 500)),
    st.sampled_from(["1" + "0" * 400, "-0", "-0.0", "5e-324", "1e400", "-1e999", "NaN", "Infinity", "9" * 5_000]),
)
TEXTS = st.text(max_size=5).map(json.dumps)
VALUES = st.recursive(
    NUMBERS | TEXTS | st.sampled_from(["null", "true"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.dictionaries(TEXTS, inner, max_size=3).map(
            lambda pairs: "{" + ",".join(f"{name}:{value}" for name, value in pairs.items()) + "}"
        ),
    ),
    max_leaves=6,
)
NESTED = "[" * 300 + "]" * 300
HUGE = json.dumps("k" * 20_000)


def _post(rest: Rest, path: str, text: str, method: str = "POST") -> Any:
    return rest.ask(method, path, data=text.encode("utf-8", "surrogatepass"), content_type="application/json")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(value=VALUES)
@example(value="1" + "0" * 400)
@example(value="1" + "0" * 25)
@example(value=NESTED)
@example(value="{" + HUGE + ":1}")
@example(value=HUGE)
def test_json_that_is_taken_survives_every_encoder(rest: Rest, web_app: Flask, value: str) -> None:
    session_id = rest.new_session()
    form = f'{{"type": "json_object", "x": {value}}}'
    requests = {
        "metadata": ("POST", f"/sessions/{session_id}/messages", f'{{"content": "a", "metadata": {{"x": {value}}}}}'),
        "settings": ("PUT", f"/sessions/{session_id}", f'{{"settings": {{"x": {value}, "response_format": {form}}}}}'),
        "options": (
            "POST",
            f"/sessions/{session_id}/process-llm",
            f'{{"prompt": "a", "stream": true, "response_format": {form}}}',
        ),
        "parameter": ("PUT", f"/sessions/{session_id}", f'{{"settings": {{"temperature": {value}}}}}'),
    }
    answers = {name: _post(rest, path, text, method) for name, (method, path, text) in requests.items()}

    for name, answer in answers.items():
        assert answer.status_code in (200, 201, 202, 400, 422), (name, answer.text[:300])
    assert answers["metadata"].status_code // 100 == answers["options"].status_code // 100
    with web_app.extensions["backend"].reading() as session:
        shown = [orjson.loads(event.frame) for event in events.after(session, UUID(session_id), 0, limit=100)]
    taken = sum(answer.status_code < 300 for answer in answers.values())
    # A message, settings, and a question with its reply and its job.
    assert (len(shown) > 0) == (taken > 0)
    if answers["metadata"].status_code == 201:
        stored = json.loads(value)
        assert answers["metadata"].get_json()["metadata"] == {"x": stored}
        assert shown[0]["message"]["metadata"] == {"x": stored}
        assert orjson.loads(orjson.dumps({"response_format": {"x": stored}})) == {"response_format": {"x": stored}}
        assert rest.get(f"/sessions/{session_id}/messages").get_json()["messages"][0]["metadata"] == {"x": stored}


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        ("1" + "0" * 400, "INVALID_INPUT", "metadata.n"),
        ("9223372036854775808", "INVALID_INPUT", "metadata.n"),
        ("1e400", "MALFORMED_JSON", None),
        ("9" * 5_000, "MALFORMED_JSON", None),
        (NESTED, "MALFORMED_JSON", None),
        ("{" + HUGE + ":1}", "INVALID_INPUT", "metadata"),
        ("-9223372036854775808", None, None),
        ("1e308", None, None),
    ],
)
def test_frame_outside_of_the_bound_is_refused_and_its_connection_goes_on(
    sqlite_app: Flask, sqlite_rest: Rest, value: str, code: str | None, field: str | None
) -> None:
    session_id, outbox = sqlite_rest.new_session(), PaperOutbox()
    connection = Connection(UUID(session_id), User("ann"), outbox, role="owner")
    dispatch = Dispatch(sqlite_app.extensions["chat_hub"], connection, sqlite_app.extensions["rate_limits"])

    dispatch(f'{{"type": "send_message", "content": "a", "process": false, "metadata": {{"n": {value}}}}}')

    assert [(said["error_code"], said["details"]["field"]) for said in frames(outbox)] == (
        [(code, field)] if code else []
    )
    assert len(sqlite_rest.get(f"/sessions/{session_id}/messages").get_json()["messages"]) == (code is None)


def test_large_numbers_of_a_provider_are_read_within_the_bound() -> None:
    read = parse(b'{"a": 1e400, "b": -1e999, "c": 1%s, "d": NaN, "e": 1%s}' % (b"0" * 25, b"0" * 400))

    assert read == {"a": None, "b": None, "c": 1e25, "d": None, "e": None}
    assert orjson.dumps(read)

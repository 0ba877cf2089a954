"""Replies as servers write them: what is read of each, wherever its bytes are cut."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from chat_backend.domain.errors import ProviderError
from chat_backend.domain.limits import REPLY_CHARACTERS
from workers.providers.reply import ReplyReader

BROKEN, EMPTY, FAILED = "STREAM_BROKEN", "EMPTY_REPLY", "PROVIDER_FAILED"
DONE = "data: [DONE]\n\n"


@dataclass(frozen=True)
class Read:
    """What came of a reply."""

    text: str
    error: str | None = None
    finish_reason: str | None = None
    thought_bytes: int = 0
    counted: int | None = None


def read(pieces: Iterable[bytes], **headers: str) -> Read:
    """Read a body that ends cleanly, as the client does."""
    texts: list[str] = []
    reader, error = ReplyReader(texts.append), None
    reader.begin(200, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        for piece in pieces:
            reader.feed(piece)
        reader.end()
    except ProviderError as failure:
        error = failure
    if error is None or reader.is_whole:
        try:
            reader.conclude()
            error = None
        except ProviderError as failure:
            error = failure
    known = reader.known
    counted = known.counts.completion_tokens
    return Read("".join(texts), error and error.code.value, known.finish_reason, known.thought_bytes, counted)


def however_cut(body: str | bytes, **headers: str) -> Read:
    """Read a body whole, byte by byte, and cut in two at every place; the outcome is the same."""
    data = body.encode() if isinstance(body, str) else body
    whole = read([data], **headers)
    assert read((data[place : place + 1] for place in range(len(data))), **headers) == whole
    for place in range(1, len(data)):
        assert read((data[:place], data[place:]), **headers) == whole, data[:place]
    return whole


def chunk(content: Any = None, reason: Any = None, **more: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {"id": "x", "choices": [{"index": 0, "delta": delta | more, "finish_reason": reason}]}


def choice(**fields: Any) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, **fields}]}


def events(*chunks: Any, done: bool = True) -> str:
    return "".join(f"data: {json.dumps(each)}\n\n" for each in chunks) + (DONE if done else "")


STOP = chunk(reason="stop")
USAGE = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
PLAIN = events(chunk("", role="assistant"), chunk("One "), chunk("two."), STOP, USAGE)
COMPLETION = {"id": "x", "choices": [{"index": 0, "message": {"content": "One two."}, "finish_reason": "stop"}]}
ONE_TWO = Read("One two.", finish_reason="stop")


# Where a reply ends


@pytest.mark.parametrize(
    ("reason", "understood"),
    [
        *((reason, "stop") for reason in ("stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE")),
        *((reason, "stop") for reason in ("FinishReason.STOP", "FINISH_REASON_STOP", "eosFound", {"type": "stop"})),
        *((reason, "length") for reason in ("length", "MAX_TOKENS", "model_length", "max_tokens", "token_limit")),
        *((reason, "content_filter") for reason in ("content_filter", "SAFETY", "RECITATION", "sensitive", "refusal")),
        *((reason, "tool_calls") for reason in ("tool_calls", "tool_use", "TOOL_CALL")),
        ("function_call", "function_call"),
    ],
)
def test_known_finish_reasons_end_a_reply(reason: Any, understood: str) -> None:
    assert read([events(chunk("Hi"), chunk(reason=reason), done=False).encode()]) == Read("Hi", None, understood)


@pytest.mark.parametrize(
    "reason",
    [
        *("insufficient_system_resource", "network_error", "abort", "aborted", "cancelled", "timeout", "OTHER", "load"),
        *(
            "unload",
            "ERROR_LIMIT",
            "MALFORMED_FUNCTION_CALL",
            "pause_turn",
            "whatever",
            "user_cancel",
            7,
            True,
            ["stop"],
        ),
    ],
)
@pytest.mark.parametrize("shape", ["stream", "body"])
def test_other_finish_reasons_break_a_reply(reason: Any, shape: str) -> None:
    completion = choice(message={"content": "Half a "}, finish_reason=reason)
    body = json.dumps(completion) if shape == "body" else events(chunk("Half a "), chunk(reason=reason))

    assert read([body.encode()]) == Read("Half a ", BROKEN)


def test_a_server_s_word_for_its_failure_is_no_whole_reply() -> None:
    assert read([events(chunk("Half a "), chunk(reason="error")).encode()]) == Read("Half a ", FAILED)


@pytest.mark.parametrize("reason", ["", "null", "none", None, False, "FINISH_REASON_UNSPECIFIED", "not_finished"])
def test_a_reason_that_is_none_does_not_end_a_reply(reason: Any) -> None:
    assert read([events(chunk("One ", reason), chunk("two.", reason), STOP).encode()]) == ONE_TWO
    assert read([events(chunk("One ", reason), done=False).encode()]).error == BROKEN


@pytest.mark.parametrize(
    "stream",
    [
        events(chunk("One ", "stop"), chunk("two.", "stop")),
        events(chunk("", "stop"), chunk("One ", "stop"), chunk("", "stop"), chunk("two.", "stop"), STOP),
        events(chunk(None, "stop", reasoning="Hm."), chunk("One "), chunk("two."), STOP, done=False),
        events(chunk("One "), STOP, chunk("two.")),
        events(chunk("One "), STOP, USAGE, chunk("two.")),
        events(chunk("One ", "tool_calls"), chunk("two."), STOP, done=False),
    ],
)
def test_text_after_a_finish_reason_counts(stream: str) -> None:
    found = however_cut(stream)

    assert (found.text, found.error, found.finish_reason) == ("One two.", None, "stop")


EACH_STOPS = events(chunk("One ", "stop"), chunk("two.", "stop"), done=False)


def test_where_every_event_ends_the_reply_its_connection_s_end_may_be_a_cut() -> None:
    assert however_cut(EACH_STOPS) == Read("One two.", BROKEN, "stop")
    assert read([EACH_STOPS.encode()], transfer_encoding="chunked") == ONE_TWO
    assert read([EACH_STOPS.encode()], content_length="1") == ONE_TWO
    assert read([(EACH_STOPS + events(USAGE, done=False)).encode()]).error is None


@pytest.mark.parametrize("after", [{"error": {"message": "x"}}, {"detail": "x"}, "{oops", {"choices": "?"}])
def test_what_breaks_after_a_doubtful_end_breaks_the_reply(after: Any) -> None:
    bad = f"data: {after if isinstance(after, str) else json.dumps(after)}\n\n"

    assert read([(EACH_STOPS + bad).encode()]).error in (BROKEN, FAILED)
    assert read([(events(chunk("One ", "stop"), done=False) + bad).encode()]).error in (BROKEN, FAILED)
    assert read([(events(chunk("One two."), STOP, done=False) + bad).encode()]) == ONE_TWO


def test_an_error_after_a_finish_reason_without_text_fails_the_reply() -> None:
    begun = events(chunk("", "stop", role="assistant"), done=False)

    assert read([(begun + 'data: {"error": {"message": "x"}}\n\n').encode()]) == Read("", FAILED, "stop")


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (events(STOP), EMPTY),
        (events(chunk(role="assistant"), STOP), EMPTY),
        (events(chunk("", output_text="Hi"), STOP), EMPTY),
        (events(chunk([{"type": "novel", "value": "Hi"}]), STOP), EMPTY),
        (events(choice(delta={}, content="Hi", finish_reason="stop")), EMPTY),
        (json.dumps(choice(message={"role": "assistant"}, finish_reason="stop")), EMPTY),
        (events(chunk(reasoning_content="Hm."), chunk(reason="length")), EMPTY),
        (events(chunk("<think>Hm."), STOP), EMPTY),
        (events(chunk(""), STOP, {"choices": [], "usage": {"completion_tokens": 40}}), EMPTY),
        (events(chunk("", role="assistant"), STOP), None),
        (events(choice(delta={"role": "assistant", "content": None}), STOP), None),
        (events(chunk(reason="content_filter")), None),
        (events(chunk(None, tool_calls=[{"id": "1"}]), chunk(reason="tool_calls")), None),
        (events(chunk("", images=[{"type": "image_url"}]), STOP), None),
        (events(), BROKEN),
        (events({"choices": []}, {"novel": 1}), BROKEN),
        ("data: null\n\n" + DONE, BROKEN),
        (events(chunk(7), STOP), BROKEN),
    ],
)
def test_a_reply_whose_text_is_not_found_fails(stream: str, error: str | None) -> None:
    found = however_cut(stream)

    assert (found.text, found.error) == ("", error)


# Where the text stands


@pytest.mark.parametrize(
    "stream",
    [
        PLAIN,
        events(chunk([{"type": "text", "text": "One "}]), chunk([{"type": "text", "text": "two"}, "."]), STOP),
        events(chunk({"type": "text", "text": "One "}), chunk([{"type": "output_text", "text": "two."}]), STOP),
        events(chunk([{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "One two."}]), STOP),
        events(chunk({"parts": [{"text": "One "}, {"text": "two."}]}), STOP),
        events(choice(message={"content": "One "}), choice(message={"content": "two."}), STOP),
        events(choice(delta=None, message={"content": "One two."}), STOP),
        events(choice(text="One ", finish_reason=None), choice(text="two."), choice(text="", finish_reason="stop")),
        events(choice(text="One ", delta={"content": "One "}), choice(text="two.", delta={"content": "two."}), STOP),
        events(choice(delta="One "), choice(delta="two."), STOP),
        events(COMPLETION),
        events(COMPLETION, done=False),
        events(chunk("One "), chunk("two."), COMPLETION),
        events(chunk("One "), COMPLETION),
        events(choice(delta={"content": None, "refusal": "One "}), chunk(None, refusal="two."), STOP),
        events([chunk("One ")], [chunk("two."), STOP]),
        json.dumps(COMPLETION),
        json.dumps([COMPLETION]),
        json.dumps(COMPLETION, indent=1),
        json.dumps(choice(text="One two.", finish_reason="stop")),
    ],
)
def test_text_is_found_wherever_it_stands(stream: str) -> None:
    found = however_cut(stream)

    assert (found.text, found.error, found.finish_reason) == ("One two.", None, "stop")


@pytest.mark.parametrize(
    "reasoning",
    [
        {"reasoning": "Hmm."},
        {"reasoning_content": "Hmm.", "reasoning": "Hmm."},
        {"reasoning_text": "Hmm."},
        {"thinking": "Hmm."},
        {
            "reasoning_details": [
                {"type": "reasoning.text", "text": "Hm"},
                {"type": "reasoning.summary", "summary": "m."},
            ]
        },
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hmm."}]}]},
        {"content": [{"type": "thinking", "thinking": "Hmm."}]},
        {"content": [{"type": "reasoning", "text": "Hmm."}]},
        {"content": "<think>Hmm.</think>"},
    ],
)
def test_reasoning_is_no_text(reasoning: dict[str, Any]) -> None:
    stream = events(chunk("", role="assistant"), choice(delta=reasoning), chunk("One "), chunk("two."), STOP)

    assert however_cut(stream) == Read("One two.", None, "stop", thought_bytes=4)


def test_reasoning_in_the_text_is_taken_out_however_it_is_cut() -> None:
    text = "\n<think>\nIs it <b>?\n</think>\n\nOne two."
    pieces = [events(*map(chunk, text), STOP).encode(), events(chunk(text), STOP).encode()]

    found = {read([piece]) for piece in pieces}

    assert found == {Read("One two.", None, "stop", thought_bytes=len("\nIs it <b>?\n"))}


def test_endless_reasoning_has_the_limit_of_a_reply() -> None:
    long = events(chunk("<think>" + "x" * REPLY_CHARACTERS), chunk("x"))

    assert read([long.encode()]).error == "REPLY_TOO_LONG"


# How the events are written


@pytest.mark.parametrize("eol", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("before", ["", "\ufeff", "\n\n", "  \r\n", "\ufeff\n \t", ": hello\n\n", "event: message\n"])
def test_line_ends_and_what_comes_first_do_not_matter(eol: str, before: str) -> None:
    body = (before + events(chunk("One "), chunk("two."), STOP)).replace("\n", eol)

    assert however_cut(body) == ONE_TWO


@pytest.mark.parametrize("before", ["\n", "\n\n\n", "\r\n", "         ", "\ufeff", " \n\ufeff"])
@pytest.mark.parametrize("after", ["", "\n", "\r\n\r\n"])
def test_a_body_of_json_is_read_after_keep_alives(before: str, after: str) -> None:
    assert however_cut(before + json.dumps(COMPLETION) + after) == ONE_TWO


ONE_NEWLINE = PLAIN.replace("\n\n", "\n")


@pytest.mark.parametrize(
    "body",
    [
        ONE_NEWLINE,
        ONE_NEWLINE.rstrip(),
        ONE_NEWLINE.replace("\n", "\r\n"),
        ONE_NEWLINE.replace("data: ", "data:"),
        ONE_NEWLINE.replace("data: {", "event: message\ndata: {"),
        ONE_NEWLINE.replace("data: [DONE]\n", ""),
        ONE_NEWLINE.replace("data: {", "{"),
        PLAIN.replace("data: {", "data:{"),
        PLAIN.replace("data: ", "data:   "),
        PLAIN.replace("data: {", "id: 7\nretry: 10\nevent: completion\n: note\ndata: {"),
        PLAIN.replace("data: {", "event: ping\ndata: ping\n\nevent: ping\ndata:\n\ndata: {"),
        PLAIN.replace("data: {", "data: ping\n\ndata:  \n\ndata: {"),
        PLAIN.replace("[DONE]", '"[DONE]"'),
        PLAIN.replace("[DONE]", " [done] "),
        PLAIN.replace(", ", ",\ndata: "),
        PLAIN.replace(", ", ",\ndata:"),
        ": hello\n\n" + PLAIN.replace("data: {", "{"),
    ],
)
def test_rare_framings_give_the_same_reply(body: str) -> None:
    assert however_cut(body) == Read("One two.", None, "stop", counted=2)


def test_lines_without_blank_lines_between_are_read_as_they_come() -> None:
    texts: list[str] = []
    reader = ReplyReader(texts.append)
    for line in ONE_NEWLINE.splitlines(keepends=True)[:3]:
        reader.feed(line.encode())

    assert texts == ["One ", "two."]


# Errors in the middle


@pytest.mark.parametrize(
    "fault",
    [
        'data: {"error": {"message": "x"}}\n\n',
        'data: {"error": "x"}\n\n',
        'event: error\ndata: {"message": "x", "code": "busy"}\n\n',
        "event: error\ndata: Internal Server Error\n\n",
        "event: error\n\n",
        'data: {"detail": "x"}\n\n',
        'data: {"detail": [{"msg": "x"}]}\n\n',
        'data: {"errors": [{"message": "x"}]}\n\n',
        'data: {"errors": "x"}\n\n',
        'data: {"choices": null, "base_resp": {"status_code": 1013, "status_msg": "x"}}\n\n',
        'data: {"code": "InvalidParameter", "message": "x"}\n\n',
        'data: {"code": 1234, "msg": "x"}\n\n',
        'data: {"error_code": 17, "error_msg": "x"}\n\n',
        'data: {"type": "error", "message": "x"}\n\n',
        'data: {"message": "Internal server error"}\n\n',
        'data: [{"error": {"message": "x"}}]\n\n',
        '{"error": {"message": "x"}}\n',
        'data: {"choices": [{"index": 0, "delta": {}, "error": {"code": 502, "message": "x"}}]}\n\n',
        'data: "upstream failed"\n\n',
        "data: upstream failed\n\n",
    ],
)
@pytest.mark.parametrize("before", [events(chunk("Half a "), done=False), ""])
@pytest.mark.parametrize("after", [DONE, events(STOP)])
def test_every_form_of_error_in_a_stream_fails_the_reply(fault: str, before: str, after: str) -> None:
    found = however_cut(before + fault + after)

    assert found.error in (FAILED, BROKEN)
    assert found.text == ("Half a " if before else "")


@pytest.mark.parametrize(
    "harmless",
    [
        {"base_resp": {"status_code": 0, "status_msg": ""}, "choices": []},
        {"error": None, "choices": []},
        {"code": 0, "msg": "ok"},
        {"code": 200, "message": "success"},
        {"type": "ping"},
        {"type": "status", "status": "processing", "message": "waiting"},
        {"choices": None, "usage": None},
        {},
    ],
)
def test_what_is_no_error_does_not_fail_a_reply(harmless: dict[str, Any]) -> None:
    assert however_cut(events(harmless, chunk("One "), harmless, chunk("two."), STOP)) == ONE_TWO


@pytest.mark.parametrize("place", range(1, len(PLAIN) - len("data: [DONE]\n\n"), 7))
def test_a_stream_that_is_cut_short_is_never_whole(place: int) -> None:
    found = read([PLAIN[:place].encode()])

    assert found.error == BROKEN or found.text == "One two."


def test_half_a_body_of_json_is_never_whole() -> None:
    for body in (json.dumps(COMPLETION), json.dumps(COMPLETION, indent=1)):
        errors = {read([body[:place].encode()]).error for place in range(len(body))}
        assert errors == {BROKEN}

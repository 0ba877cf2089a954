"""How a line of our logs looks."""

from __future__ import annotations

import logging

from chat_backend.domain.trace import traced
from chat_backend.logs import Facts


def record(**extra: object) -> logging.LogRecord:
    return logging.getLogger("chat.test").makeRecord(
        "chat.test", logging.WARNING, "file.py", 1, "could not publish", (), None, extra=extra
    )


def test_a_line_is_a_sentence_and_its_facts() -> None:
    line = Facts().format(record(action="publish", trace_id="abc"))

    assert line.endswith("WARNING chat.test: could not publish action='publish' trace_id='abc'")


def test_the_time_is_in_utc_and_can_be_sorted() -> None:
    made = record()
    made.created, made.msecs = 0.0, 7

    assert Facts().format(made).startswith("1970-01-01T00:00:00.007Z ")


def test_a_line_names_the_request_that_led_to_it() -> None:
    with traced("abc"):
        line, own = Facts().format(record(action="publish")), Facts().format(record(trace_id="own"))

    assert line.endswith("could not publish action='publish' trace_id='abc'")
    assert own.endswith("could not publish trace_id='own'")
    assert "trace_id" not in Facts().format(record())

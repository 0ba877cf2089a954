"""What a client says is read strictly, and what is wrong with it is said within bounds."""

from __future__ import annotations

import time

import pytest

from chat_backend.domain.errors import InvalidInput
from chat_backend.protocol.commands import read_command


def test_unknown_names_are_told_with_everything_else_that_is_wrong() -> None:
    with pytest.raises(InvalidInput) as refused:
        read_command({"type": "send_message", "process": "yes", "x": 1, "y": 2})

    assert {fault["field"] for fault in refused.value.errors} == {"content", "process", "x", "y"}


def test_of_very_many_unknown_names_some_are_told_and_nothing_else_is_looked_at() -> None:
    frame = {"type": "ping"} | {str(number): number for number in range(15_000)}
    began = time.process_time()

    with pytest.raises(InvalidInput) as refused:
        read_command(frame)

    assert len(refused.value.errors) == 100
    assert time.process_time() - began < 0.02


def test_list_that_is_too_long_is_one_error() -> None:
    with pytest.raises(InvalidInput) as refused:
        read_command({"type": "send_message", "content": "x", "stop": [1] * 10_000})

    assert refused.value.errors is not None
    assert len(refused.value.errors) == 1
    assert "maximum length 4" in refused.value.message

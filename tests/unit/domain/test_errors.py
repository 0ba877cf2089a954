"""What a client is told."""

from __future__ import annotations

from chat_backend.domain.errors import InvalidInput


def test_an_answer_is_not_larger_than_anyone_would_read() -> None:
    faults = [{"field": "k" * 5_000, "message": "Unknown field."} for _ in range(20_000)]

    error = InvalidInput("Unknown field.", field="k" * 5_000, faults=faults)

    assert len(error.errors) == 100
    assert all(len(fault["field"]) == 200 for fault in [*error.errors, error.details])

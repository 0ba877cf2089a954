"""Envelopes: what is packed is unpacked, and what is none is refused in one way."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat_backend.protocol.envelope import (
    Closed,
    Delta,
    Durable,
    Envelope,
    Ephemeral,
    pack,
    pack_deltas,
    unpack,
    unpack_deltas,
)

NAMES = st.none() | st.text(max_size=20)
ENVELOPES = st.one_of(
    st.builds(Durable, st.integers(1, 10**12), st.binary(), NAMES, NAMES),
    st.builds(
        lambda user, typing: Ephemeral({"type": "typing_indicator", "user_id": user, "is_typing": typing}),
        st.text(),
        st.booleans(),
    ),
    st.just(Closed()),
)
DELTAS = st.lists(st.builds(Delta, st.text(), st.text(), st.integers(1, 10**6), st.integers(0, 10**6), st.text()))


@given(envelope=ENVELOPES)
def test_what_is_packed_is_unpacked(envelope: Envelope) -> None:
    assert unpack(pack(envelope)) == envelope


@given(deltas=DELTAS)
def test_pieces_of_text_that_are_packed_are_unpacked(deltas: list[Delta]) -> None:
    assert unpack_deltas(pack_deltas(deltas)) == deltas


@settings(max_examples=500)
@given(data=st.binary() | st.builds(bytes.__add__, st.sampled_from([b"e", b"f", b"x"]), st.binary()))
@example(b"f\n" + b"[" * 100_000)
@example(b"e" + b"[" * 100_000 + b"\n")
@example(b"")
def test_garbage_is_a_value_error_or_an_envelope(data: bytes) -> None:
    with suppress(ValueError):
        unpack(data)


@settings(max_examples=500)
@given(envelope=ENVELOPES, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_damaged_envelope_is_a_value_error_or_an_envelope(envelope: Envelope, at: int, byte: int) -> None:
    data = bytearray(pack(envelope))
    data[at % len(data)] = byte

    with suppress(ValueError):
        unpack(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"q\n",
        b'e{"o": true, "u": null, "r": null}\n{}',
        b'e{"o": 0, "u": null, "r": null}\n{}',
        b'e{"o": 1, "u": 5, "r": null}\n{}',
        b"e[]\n{}",
        b'f\n{"type": "message_update", "user_id": "ann"}',
        b'f\n{"type": "error", "user_id": "ann"}',
        b'f\n{"type": "user_left"}',
        b'f\n{"type": "user_left", "user_id": {}}',
    ],
)
def test_what_no_process_of_ours_says_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack(data)


@settings(max_examples=500, deadline=None)
@given(deltas=DELTAS, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_damaged_pieces_of_text_are_a_value_error_or_pieces_of_text(deltas: list[Delta], at: int, byte: int) -> None:
    data = bytearray(pack_deltas(deltas))
    data[at % len(data)] = byte

    with suppress(ValueError):
        assert all(isinstance(delta.text, str) for delta in unpack_deltas(bytes(data)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1",
        b"[1]",
        b"[[]]",
        b'[["channel", "message", 1, 0]]',
        b'[["channel", "message", 1, 0, "text", 6]]',
        b'[["channel", "message", 0, 0, "text"]]',
        b'[["channel", "message", 1, -1, "text"]]',
        b'[["channel", "message", true, 0, "text"]]',
        b'[["channel", "message", 1, 0.5, "text"]]',
        b'[["channel", "message", 1, 0, null]]',
        b'[["channel", {}, 1, 0, "text"]]',
        b'[[null, "message", 1, 0, "text"]]',
        b'[["channel", "message", 1, 0, "\xff"]]',
        b"[" * 100_000,
    ],
)
def test_what_is_no_piece_of_text_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack_deltas(data)

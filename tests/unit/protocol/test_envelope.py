"""Envelopes: what is packed is unpacked, and what is none is refused in one way."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat_backend.protocol.envelope import Closed, Delta, Durable, Envelope, Ephemeral, pack, unpack

AN_ID = b"01a205e1-9724-72f9-9000-4e36de8aa148"
NAMES = st.none() | st.text(max_size=20)
ENVELOPES = st.one_of(
    st.builds(Delta, st.uuids().map(str), st.integers(1, 10**6), st.integers(0, 10**6), st.text()),
    st.builds(Durable, st.integers(1, 10**12), st.binary(), NAMES, NAMES),
    st.builds(
        lambda user, typing: Ephemeral({"type": "typing_indicator", "user_id": user, "is_typing": typing}),
        st.text(),
        st.booleans(),
    ),
    st.just(Closed()),
)


@given(envelope=ENVELOPES)
def test_what_is_packed_is_unpacked(envelope: Envelope) -> None:
    assert unpack(pack(envelope)) == envelope


@settings(max_examples=500)
@given(data=st.binary() | st.builds(bytes.__add__, st.sampled_from([b"d", b"e", b"f", b"x"]), st.binary()))
@example(b"f\n" + b"[" * 100_000)
@example(b"e" + b"[" * 100_000 + b"\n")
@example(b"d\n")
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
        b"d%s 1 -1\ntext" % AN_ID,
        b"d%s 0 0\ntext" % AN_ID,
        b"d%s 1 0\n\xff" % AN_ID,
        b"dnot-an-id 1 0\ntext",
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

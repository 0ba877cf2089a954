"""Events cut out of bytes."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_backend.domain.errors import StreamBroken
from workers.providers.sse import LONGEST_LINE_BYTES, EventSplitter

LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:a",
        b"data: b",
        b"data",
        b"data:",
        b": comment",
        b"",
        b"event: x",
        b"event: error",
        b"event: ping",
        b'{"a": 1}',
        b"data: [DONE]",
        b"id: 1",
        b"\xe2\x80\xa8",
        b"x",
    ]
)
WHOLE = ([b"{}"], [b'{"a": 1}'], [b"[DONE]"])
STREAMS = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"])), max_size=30).map(
    lambda parts: b"".join(line + end for line, end in parts)
)


def events(*reads: bytes) -> list[bytes]:
    splitter = EventSplitter()
    return [event for read in reads for event in splitter.feed(read)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def read_line_by_line(stream: bytes) -> list[bytes]:
    """Split the slow way: one whole stream, one line after the other, by the standard and our two deviations."""
    found: list[bytes] = []
    data: list[bytes] = []
    name = b""
    per_line = False

    def end() -> None:
        nonlocal name
        joined = b"\n".join(data)
        if name == b"error" or (joined and name != b"ping"):
            found.append(joined)
        data.clear()
        name = b""

    for line in re.split(rb"\r\n|\r|\n", stream)[:-1]:
        field, _, value = (b"data", b"", line) if line.startswith(b"{") else line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value
        if field == b"data":
            if data[:1] in WHOLE and len(data) == 1 and value:
                per_line = True
                end()
            data.append(value)
            if per_line and data in WHOLE:
                end()
        if not line:
            end()
    return found


@given(STREAMS)
def test_events_are_those_of_the_standard_and_of_whole_lines(stream):
    expected = read_line_by_line(stream)

    found = events(stream)

    assert found == expected


@given(STREAMS, st.lists(st.integers(0, 10_000)))
def test_however_the_bytes_are_cut_the_events_are_the_same(stream, places):
    whole = events(stream)

    in_pieces = events(*cut(stream, places))

    assert in_pieces == whole


@given(STREAMS)
def test_byte_by_byte_gives_the_same_events(stream):
    whole = events(stream)

    in_bytes = events(*(stream[place : place + 1] for place in range(len(stream))))

    assert in_bytes == whole


def test_several_events_in_one_read_are_all_found():
    read = b'data: {"a": 1}\n\n: note\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n'

    found = events(read)

    assert found == [b'{"a": 1}', b'{"b": 2}', b"[DONE]"]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_cr_and_lf_end_a_line(mark):
    read = f"data: a{mark}b\n\n".encode()

    found = events(read)

    assert found == [f"a{mark}b".encode()]


def test_an_event_without_its_last_empty_line_is_given_at_the_end():
    splitter = EventSplitter()
    splitter.feed(b"data: [DONE]")

    found = splitter.end()

    assert found == [b"[DONE]"]


def test_the_longest_line_passes():
    line = b"data: " + b"x" * (LONGEST_LINE_BYTES - 6)

    found = events(line + b"\n\n")

    assert [len(event) for event in found] == [LONGEST_LINE_BYTES - 6]


@pytest.mark.parametrize("size", [LONGEST_LINE_BYTES * 2, 65_536, 1000])
def test_a_longer_line_breaks_the_stream_however_it_comes(size):
    line = b"data: " + b"x" * LONGEST_LINE_BYTES + b"\n\n"
    reads = [line[start : start + size] for start in range(0, len(line), size)]

    with pytest.raises(StreamBroken):
        events(*reads)


def test_a_giant_line_that_never_ends_breaks_the_stream():
    reads = [b"x" * 65_536] * (LONGEST_LINE_BYTES // 65_536 + 1)

    with pytest.raises(StreamBroken):
        events(*reads)


def test_an_event_of_endless_lines_breaks_the_stream():
    reads = [b"data: " + b"x" * 65_536 + b"\n"] * (LONGEST_LINE_BYTES // 65_536 + 1)

    with pytest.raises(StreamBroken):
        events(*reads)

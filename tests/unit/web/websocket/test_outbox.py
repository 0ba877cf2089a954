"""What waits for a viewer: in order, whole, bounded, and nobody waits for it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from websockets.frames import Frame as WireFrame
from websockets.streams import StreamReader

from chat_backend.domain.cursor import Cursor
from chat_backend.web.websocket.frames import TEXT, Encoded, close_frame, websocket_frame
from chat_backend.web.websocket.outbox import SSE_COMMENT, SSE_PIECE_BYTES, SocketOutbox, StreamOutbox


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, theirs


def _read(theirs: socket.socket, outbox: SocketOutbox, frames: int) -> list[tuple[int, bytes]]:
    """Read whole frames as a client's library does."""
    reader, found = StreamReader(), []
    for _ in range(frames):
        parser = WireFrame.parse(reader.read_exact, mask=False)
        while True:
            try:
                next(parser)
            except StopIteration as done:
                found.append((int(done.value.opcode), bytes(done.value.data)))
                break
            outbox.pump()
            reader.feed_data(theirs.recv(65536))
    return found


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 300_000])
def test_a_frame_of_any_size_arrives_whole(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    ours, theirs = pair
    outbox = SocketOutbox(ours)

    outbox.push(Encoded(b"x" * size))

    assert _read(theirs, outbox, 1) == [(TEXT, b"x" * size)]
    assert outbox.idle
    assert outbox.waiting_bytes == 0


def test_a_push_never_waits_and_what_waits_is_counted(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    outbox = SocketOutbox(ours)

    for number in range(20):
        outbox.push(Encoded(str(number).encode() * 10_000))
    waiting, blocked = outbox.waiting_bytes, outbox.blocked_since
    received = _read(theirs, outbox, 20)

    assert not outbox.waiting_bytes
    assert 0 < waiting < 20 * 20_010
    assert blocked is not None
    assert outbox.blocked_since is None
    assert [data for _, data in received] == [str(number).encode() * 10_000 for number in range(20)]


def test_frames_of_many_writers_do_not_mix(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    outbox = SocketOutbox(ours)
    letters = b"abcd"

    def write(letter: bytes) -> None:
        for _ in range(100):
            outbox.push(Encoded(letter * 500))

    writers = [threading.Thread(target=write, args=(bytes([letter]),)) for letter in letters]
    for writer in writers:
        writer.start()
    received = _read(theirs, outbox, 400)
    for writer in writers:
        writer.join(5)

    assert sorted(data[:1] * len(data) for _, data in received) == sorted(data for _, data in received)
    assert sorted(data[:1] for _, data in received) == sorted(bytes([letter]) for letter in letters * 100)


def test_who_is_cut_gets_the_frame_that_was_begun_then_the_last_and_the_code(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    outbox = SocketOutbox(ours)
    for letter in (b"a", b"b", b"c"):
        outbox.push(Encoded(letter * 100_000))

    outbox.cut(Encoded(b"why"), 1013, "slow")
    outbox.push(Encoded(b"never sent"))

    assert _read(theirs, outbox, 3) == [(1, b"a" * 100_000), (1, b"why"), (8, struct.pack("!H", 1013) + b"slow")]


def test_who_is_cut_finds_the_code_whenever_it_reads(unread: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = unread
    outbox = SocketOutbox(ours)
    while outbox.blocked_since is None:
        outbox.push(Encoded(b"x" * 5_000))

    outbox.cut(Encoded(b"why"), 1013, "slow")
    nothing_waits = outbox.idle
    outbox.drop()
    received = b"".join(iter(lambda: theirs.recv(65536), b""))

    assert nothing_waits
    assert received.endswith(Encoded(b"why").websocket + close_frame(1013, "slow"))


@pytest.fixture
def unread() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection over TCP whose other side takes little."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        theirs.settimeout(5)
        theirs.connect(listener.getsockname())
        ours, _ = listener.accept()
        with ours:
            yield ours, theirs


def test_nothing_follows_a_close(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    outbox = SocketOutbox(ours)

    outbox.push(Encoded(b"last"))
    outbox.finish(1012, "restart")
    outbox.push(Encoded(b"late"))
    outbox.finish(1000, "again")
    ours.shutdown(socket.SHUT_WR)

    assert [opcode for opcode, _ in _read(theirs, outbox, 2)] == [1, 8]
    assert theirs.recv(100) == b""


def test_a_viewer_that_is_gone_takes_nothing_and_hurts_nobody(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    outbox = SocketOutbox(ours)
    theirs.close()

    for _ in range(100):
        outbox.push(Encoded(b"x" * 10_000))

    assert outbox.idle
    assert outbox.waiting_bytes == 0


def test_two_pings_without_an_answer_are_enough(pair: tuple[socket.socket, socket.socket]) -> None:
    outbox = SocketOutbox(pair[0])

    answers = [outbox.keep_alive() for _ in range(3)]
    outbox.heard()

    assert answers == [True, True, False]
    assert outbox.keep_alive()


def test_a_reason_is_cut_between_characters() -> None:
    frame = close_frame(1008, "é" * 100)

    assert len(frame) <= 127
    assert frame[4:].decode() == "é" * 61


def test_a_name_is_put_into_a_frame_as_json() -> None:
    named = Encoded(b'{"a":1}', Cursor(3)).naming('r"1\\')

    assert (named.data, named.cursor) == (b'{"a":1,"request_id":"r\\"1\\\\"}', Cursor(3))


def test_frames_are_framed_by_their_length() -> None:
    assert websocket_frame(TEXT, b"x" * 125)[:2] == b"\x81\x7d"
    assert websocket_frame(TEXT, b"x" * 126)[:4] == b"\x81\x7e\x00\x7e"
    assert websocket_frame(TEXT, b"x" * 65536)[:10] == b"\x81\x7f" + (65536).to_bytes(8, "big")


def test_an_event_of_a_stream_is_one_line_to_every_client() -> None:
    durable = Encoded('{"text":"a\u2028b\x85c\u2029"}'.encode(), Cursor(7, "1f"))

    assert durable.sse.decode() == 'id: 7\ndata: {"text":"a\\u2028b\\u0085c\\u2029"}\n\n'
    assert durable.sse_with_cursor.decode().startswith("id: 7-1f\ndata: ")
    assert Encoded(b"{}").sse == Encoded(b"{}").sse_with_cursor == b"data: {}\n\n"


def test_a_stream_gives_what_is_pushed_then_comments_then_its_end() -> None:
    outbox = StreamOutbox(comment_seconds=0.01)
    stream = outbox.stream(iter(()))
    outbox.push(Encoded(b"{}", Cursor(1)))

    given = [next(stream), next(stream), next(stream)]
    outbox.push(Encoded(b"{}"))
    outbox.finish(1012, "restart")
    outbox.push(Encoded(b"late"))
    rest = list(stream)

    assert given == [b"retry: 2000\n\n", b"id: 1\ndata: {}\n\n", SSE_COMMENT]
    assert rest == [b"data: {}\n\n"]


def test_a_stream_gives_large_things_in_pieces_and_knows_when_it_is_not_read() -> None:
    outbox = StreamOutbox(comment_seconds=1)
    stream = outbox.stream(iter(()))
    next(stream)
    outbox.push(Encoded(b"x" * 200_000))

    assert outbox.blocked_since is None
    assert len(next(stream)) == SSE_PIECE_BYTES
    assert outbox.blocked_since is not None


def test_a_stream_knows_when_its_viewer_has_hung_up(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    outbox = StreamOutbox(ours, comment_seconds=60)
    quiet = outbox.gone
    theirs.sendall(b"GET /more")
    talking = outbox.gone
    ours.recv(100)

    theirs.close()

    assert (quiet, talking, outbox.gone) == (False, False, True)


def test_a_stream_asks_for_more_of_the_past_when_what_came_is_read() -> None:
    outbox = StreamOutbox(comment_seconds=1)

    def replay() -> Iterator[None]:
        for number in range(3):
            outbox.push(Encoded(b"%d" % number, Cursor(number)))
            yield

    stream = outbox.stream(replay())

    assert [next(stream) for _ in range(4)][1:] == [b"id: %d\ndata: %d\n\n" % (n, n) for n in range(3)]

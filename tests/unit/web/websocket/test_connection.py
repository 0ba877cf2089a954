"""A connection: what a viewer is owed, and when it is closed."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import uuid4

from chat_backend.domain.cursor import Cursor
from chat_backend.domain.errors import ErrorCode
from chat_backend.domain.user import User
from chat_backend.models.base import now
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.flood import FrameRate, byte_rate
from chat_backend.web.websocket.frames import Encoded
from chat_backend.web.websocket.reply import TextBuffer
from tests.support.session_world import PaperOutbox, frames


def _connection(outbox: PaperOutbox, **more: object) -> Connection:
    return Connection(uuid4(), User("ann"), outbox, **more)  # type: ignore[arg-type]


def test_a_durable_event_is_shown_once() -> None:
    outbox = PaperOutbox()
    connection = _connection(outbox)

    for offset in (1, 2, 2, 1, 3):
        connection.show_durable(Encoded(json.dumps({"offset": offset}).encode(), Cursor(offset)))

    assert [frame["offset"] for frame in frames(outbox)] == [1, 2, 3]


def test_a_viewer_for_whom_too_much_waits_is_closed_and_told_why() -> None:
    outbox = PaperOutbox()
    outbox.reads = False
    connection = _connection(outbox, outbox_bytes=100)

    for _ in range(5):
        connection.push(Encoded(b'"' + b"x" * 60 + b'"'))
    outbox.reads = True
    outbox.pump()

    assert outbox.closed_with == 1013
    assert connection.closing
    assert frames(outbox)[-1]["error_code"] == "TOO_SLOW"


def test_one_frame_of_any_size_is_no_reason_to_close() -> None:
    outbox = PaperOutbox()
    connection = _connection(outbox, outbox_bytes=100)

    connection.push(Encoded(b'"' + b"x" * 1000 + b'"'))

    assert outbox.closed_with is None


def test_the_first_reason_to_close_counts() -> None:
    outbox = PaperOutbox()
    connection = _connection(outbox)

    connection.close(4403, ErrorCode.NOT_A_PARTICIPANT, "You are no longer a participant.")
    connection.close(1012, ErrorCode.SERVER_RESTARTING, "The server restarts.")
    connection.cut(1013, "slow")

    assert outbox.closed_with == 4403
    assert [frame["error_code"] for frame in frames(outbox)] == ["NOT_A_PARTICIPANT"]


def test_a_connection_ends_with_its_token() -> None:
    assert not Connection(uuid4(), User("ann"), PaperOutbox()).expired()
    assert Connection(uuid4(), User("ann", expires_at=now()), PaperOutbox()).expired()
    assert not Connection(uuid4(), User("ann", expires_at=now() + timedelta(minutes=1)), PaperOutbox()).expired()


def test_a_rate_allows_so_many_a_second_and_as_many_again_at_once() -> None:
    clock = [0.0]
    rate = FrameRate(20, clock=lambda: clock[0])

    at_once = sum(rate.allows() for _ in range(100))
    clock[0] += 0.5
    later = sum(rate.allows() for _ in range(100))

    assert (at_once, later) == (40, 10)


def test_bytes_have_a_rate_too_within_which_a_few_of_the_largest_frames_may_come_at_once() -> None:
    largest = 256 * 1024
    rate, fast = byte_rate(20), byte_rate(10_000)

    at_once = sum(rate.allows(largest) for _ in range(20))

    assert at_once == 4
    assert rate.allows(0)
    assert sum(fast.allows(largest) for _ in range(100)) == 100


def test_a_text_counts_code_points_however_it_came() -> None:
    text = TextBuffer("\N{GRINNING FACE}")
    for piece in ("a", "", "\U00020000\u0301"):
        text.append(piece)

    assert len(text) == 4
    assert text.whole() == "\N{GRINNING FACE}a\U00020000\u0301"
